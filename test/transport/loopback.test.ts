/** Sessions in one process keep what every transport promises. */
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createLoopbackTransport } from "../../src/transport/loopback.ts";
import { describeTransport } from "./conformance.ts";

describeTransport({
  name: "loopback",
  create: () => createLoopbackTransport(systemScheduler),
  address: "loopback://here:0",
  nowhere: "loopback://nowhere:1",
  hasCertificates: false,
});
