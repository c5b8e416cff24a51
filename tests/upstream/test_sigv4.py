"""Signature Version 4: AWS's published vectors, and two signers of AWS's own as oracles."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime

import pytest
from awscrt.auth import (
    AwsCredentialsProvider,
    AwsSignatureType,
    AwsSigningAlgorithm,
    AwsSigningConfig,
    aws_sign_request,
)
from awscrt.http import HttpHeaders, HttpRequest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.role_credentials import parse_credentials
from lorabridge.upstream.sigv4 import TemporaryCredentials, signature, signing_key, websocket_target
from tests.upstream.websocket_endpoint import SECRET, lent

ENDPOINT = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
ALNUM = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), min_size=16, max_size=20)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)).map(lambda at: at.replace(tzinfo=UTC, microsecond=0))  # noqa: DTZ001


def test_the_suite_s_get_vanilla_has_its_published_signature() -> None:
    # AWS Signature Version 4 test suite, get-vanilla.creq and get-vanilla.authz (Apache-2.0).
    canonical = (
        "GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    signed = signature(canonical, secret, "20150830T123600Z", "us-east-1", "service")
    assert signed == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


def test_the_signing_key_of_the_documentation_is_derived() -> None:
    # AWS general reference, "Examples of how to derive a signing key for Signature Version 4".
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


@given(PRINTABLE, MOMENTS)
def test_botocore_derives_the_same_key_and_signature(secret: str, at: datetime) -> None:
    auth = SigV4Auth(Credentials("AKIDEXAMPLE", secret), "iotdevicegateway", "eu-central-1")
    request = AWSRequest("GET", f"https://{ENDPOINT}/mqtt")
    moment = f"{at:%Y%m%dT%H%M%SZ}"
    request.context["timestamp"] = moment
    canonical = auth.canonical_request(request)
    expected = auth.signature(auth.string_to_sign(request, canonical), request)
    assert signature(canonical, secret, moment, "eu-central-1", "iotdevicegateway") == expected


@given(ALNUM, PRINTABLE, PRINTABLE, MOMENTS)
def test_the_address_is_that_of_aws_s_own_client(key_id: str, secret: str, token: str, at: datetime) -> None:
    config = AwsSigningConfig(
        algorithm=AwsSigningAlgorithm.V4,
        signature_type=AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS,
        credentials_provider=AwsCredentialsProvider.new_static(key_id, secret, token),
        region="eu-central-1",
        service="iotdevicegateway",
        date=at,
        omit_session_token=True,
    )
    request = HttpRequest("GET", "/mqtt", HttpHeaders([("host", ENDPOINT)]))
    expected = aws_sign_request(request, config).result(20).path
    ours = websocket_target(ENDPOINT, "eu-central-1", TemporaryCredentials(key_id, secret, token, at), at)
    assert set(ours.removeprefix("/mqtt?").split("&")) == set(expected.removeprefix("/mqtt?").split("&"))


def test_credentials_show_nothing_secret_and_are_not_pickled() -> None:
    ends = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    credentials = parse_credentials(lent(7, ends))
    assert credentials.reveal() == (SECRET, "token/7+=")
    assert repr(credentials) == "TemporaryCredentials('ASIA7', secret=<hidden>, ends=2030-01-02T03:04:05Z)"
    for leaves in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="not pickled"):
            leaves(credentials)


@given(st.binary(max_size=100))
def test_no_answer_makes_anything_but_credentials_or_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_credentials(body)
