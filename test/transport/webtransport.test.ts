/** Sessions over WebTransport keep what every transport promises, without a word on the terminal. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createWebTransport, webTransportSupport } from "../../src/transport/webtransport.ts";
import { describeTransport } from "./conformance.ts";

describeTransport({
  name: "https",
  create: () => createWebTransport({ scheduler: systemScheduler }),
  address: "https://127.0.0.1:0",
  nowhere: "https://127.0.0.1:9",
  hasCertificates: true,
});

test("what it runs on is told", async () => {
  expect(await webTransportSupport()).toEqual({ used: "HTTP/2", http3: expect.stringMatching(/installed/) });
});

test("loading it prints nothing, and leaves the console as it was", async () => {
  const url = new URL("../../src/transport/webtransport-package.js", import.meta.url).href;
  const script = `const { log, error } = console; const { loadWebTransport } = await import(${JSON.stringify(url)});
    await loadWebTransport(); console.log(console.log === log && console.error === error);`;
  const run = promisify(execFile)(process.execPath, ["--input-type=module", "-e", script]);
  expect(await run).toEqual({ stdout: "true\n", stderr: "" });
});
