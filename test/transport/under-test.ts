/** The transports between processes that tests run over, by their scheme. */
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { Transport } from "../../src/transport/session.ts";
import { createTlsTransport } from "../../src/transport/tls.ts";
import { createWebTransport } from "../../src/transport/webtransport.ts";

export function transportOf(scheme: "tls" | "https"): Transport {
  return scheme === "tls"
    ? createTlsTransport({ scheduler: systemScheduler, random: systemRandom })
    : createWebTransport({ scheduler: systemScheduler });
}
