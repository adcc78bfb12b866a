/**
 * The engine of collaborative searches: hands messages to the host.
 *
 * Invariant: it has no data of its own: the graph is the vector engine's, and a worker that dies loses searches only.
 */
import { VECTOR_COLLABORATE, VECTOR_COTRA } from "../../../src/wire/message-types.ts";
import type { Engine } from "../../engine.ts";
import { CotraHost, type CotraHostOptions } from "./cotra-host.ts";

/** Creates the engine of one shard, on that shard's thread. */
export function createCotraEngine(options: CotraHostOptions): Engine {
  const host = new CotraHost(options);
  return {
    handlers: new Map([
      [VECTOR_COLLABORATE, (request, reply) => host.ask(request, () => reply.hold())],
      [VECTOR_COTRA, (request) => host.receive(request)],
    ]),
    turn: (nowMs) => host.turn(nowMs),
    dueAtMs: () => host.dueAtMs,
    peerLost: (peer) => host.peerLost(peer),
    peerBack: (peer, there) => host.peerBack(peer, there),
    close: () => host.close(),
  };
}
