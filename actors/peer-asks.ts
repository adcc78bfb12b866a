/**
 * Requests of engines to the workers of other shards, over the mesh.
 *
 * Invariant: every request ends once, in a value or a rejection; `open` counts those that have not, so that the worker does not sleep through one.
 */
import { ShardloomError } from "../src/errors.ts";
import type { Payload, ReplyFrame, Requester } from "../src/routing/requester.ts";
import { VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import type { Coordinator } from "./coordinator.ts";
import type { EnginePeers } from "./engine.ts";

export class PeerAsks implements EnginePeers {
  readonly incarnation: number;
  /** Once the worker serves. */
  coordinator: Coordinator | undefined;
  open = 0;

  constructor(incarnation: number) {
    this.incarnation = incarnation;
  }

  maxPayloadBytes(shard: number): number {
    const requester: Requester | undefined = this.coordinator?.requester(shard); // none while there is no way to it
    return requester?.maxPayloadBytes ?? 0;
  }

  async ask<T>(
    shard: number,
    type: number,
    payload: Payload,
    decode: (frame: ReplyFrame) => T,
    timeoutMs: number,
  ): Promise<T> {
    if (this.coordinator === undefined)
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot ask shard ${shard} as this one does not serve yet`);
    this.open++;
    try {
      return await this.coordinator.ask(shard, type, VSHARD_LISTED, payload, decode, { timeoutMs });
    } finally {
      this.open--;
    }
  }
}
