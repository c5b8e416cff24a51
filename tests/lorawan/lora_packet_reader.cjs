// Reads downlinks as lora-packet understands them: a JSON list of cases in, a JSON list of readings out.
"use strict";
const [library, file] = process.argv.slice(2);
const lora = require(library);
const cryptoOf = require(`${library}/out/lib/crypto`);
const bytes = (text) => Buffer.from(text, "hex");

function readData(one) {
  const packet = lora.fromWire(bytes(one.phy));
  const high = bytes(one.high);
  const conf = one.is_1_1 ? bytes(one.conf_fcnt) : undefined;
  const micOk = lora.verifyMIC(packet, bytes(one.keys[0]), bytes(one.keys[one.is_1_1 ? 1 : 0]), high, conf);
  const fOpts = packet.FOpts && packet.FOpts.length ? packet.FOpts : Buffer.alloc(0);
  return {
    mic: micOk,
    m_type: packet.getMType(),
    dev_addr: packet.DevAddr.toString("hex"),
    fcnt: packet.getFCnt(),
    f_port: packet.getFPort(),
    ack: packet.getFCtrlACK(),
    f_pending: packet.getFCtrlFPending(),
    payload: packet.FRMPayload ? lora.decrypt(packet, bytes(one.keys[3]), bytes(one.keys[2]), high).toString("hex") : "",
    f_opts: (fOpts.length && one.is_1_1 ? cryptoOf.decryptFOpts(packet, bytes(one.keys[2]), high) : fOpts).toString("hex"),
  };
}

function readAccept(one) {
  const sealed = lora.fromWire(bytes(one.phy));
  const plain = lora.decryptJoinAccept(sealed, bytes(one.key));
  const packet = lora.fromWire(plain);
  if (one.is_1_1) {
    packet.JoinReqType = Buffer.from([one.kind]);
    packet.JoinEUI = bytes(one.join_eui);
    packet.DevNonce = bytes(one.nonce);
  }
  const micOk = lora.verifyMIC(packet, one.is_1_1 ? bytes(one.js_int_key) : undefined, bytes(one.key));
  return {
    mic: micOk,
    dev_addr: packet.DevAddr.toString("hex"),
    net_id: packet.NetID.toString("hex"),
    join_nonce: packet.AppNonce.toString("hex"),
    rx_delay: packet.RxDelay[0],
    cf_list: packet.CFList.toString("hex"),
  };
}

const cases = JSON.parse(require("fs").readFileSync(file));
console.log(JSON.stringify(cases.map((one) => (one.key ? readAccept(one) : readData(one)))));
