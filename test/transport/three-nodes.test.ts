/** Three nodes with real workers over TLS connections, and over WebTransport. */
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createTlsTransport } from "../../src/transport/tls.ts";
import { createWebTransport } from "../../src/transport/webtransport.ts";
import { describeNodesOver } from "./nodes-over.ts";

describeNodesOver("tls", () => ({
  transport: createTlsTransport({ scheduler: systemScheduler, random: systemRandom }),
  listen: "tls://127.0.0.1:0",
}));

describeNodesOver("https", () => ({
  transport: createWebTransport({ scheduler: systemScheduler }),
  listen: "https://127.0.0.1:0",
}));
