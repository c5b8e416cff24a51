// Decodes all frames of a file with lora-packet, once for each line on standard input.
"use strict";
const [library, file] = process.argv.slice(2);
const lora = require(library);
const frames = JSON.parse(require("fs").readFileSync(file)).map((one) => ({
  phy: Buffer.from(one.phy, "hex"),
  nwk: Buffer.from(one.nwk, "hex"),
  app: Buffer.from(one.app, "hex"),
  high: Buffer.from(one.high, "hex"),
}));

function decodeAll() {
  let last = "";
  for (const { phy, nwk, app, high } of frames) {
    const packet = lora.fromWire(phy);
    if (!lora.verifyMIC(packet, nwk, undefined, high)) return "bad MIC";
    last = lora.decrypt(packet, app, nwk, high);
  }
  return last.toString("hex");
}

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", () => console.log(decodeAll()));
