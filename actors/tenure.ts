/**
 * What a shard hosts in memory for the vshards that it is the primary of, and nowhere else: actors and barriers. They end with its term.
 *
 * Invariant: no message reaches what was hosted in an earlier term, also when the vshard went elsewhere and came back between two looks at the map;
 * and none is delivered while the lease of the node is over, as another one may host the same by now.
 * Cost: a comparison of references for each message; O(vshards + hosted) when the map has changed.
 */
import type { ActorSystem } from "../src/actor/actor-system.ts";
import { ShardloomError } from "../src/errors.ts";
import { type TopologySnapshot, vshardOfActor } from "../src/topology/snapshot.ts";
import type { BarrierHost } from "./barrier/barrier-host.ts";
import { vshardOfBarrier } from "./barrier/client-barrier.ts";

/** What a shard hosts. */
export interface Hosted {
  readonly actors: Pick<ActorSystem, "moveAway">;
  readonly barriers: Pick<BarrierHost, "closeWhere">;
}

/** What a {@link Tenure} works with. */
export interface TenureOptions {
  readonly shard: number;
  readonly topology: { current(): TopologySnapshot };
  /** Throws while the lease of the node is over. */
  readonly gate: { assertServing(): void };
  readonly hosted: () => Hosted;
}

export class Tenure {
  readonly #options: TenureOptions;
  #known: TopologySnapshot;

  constructor(options: TenureOptions) {
    this.#options = options;
    this.#known = options.topology.current();
  }

  /** @throws {ShardloomError} `ERR_UNAVAILABLE` while the shard may not deliver anything to what it hosts. */
  assertHosting(): void {
    this.look();
    this.#options.gate.assertServing();
  }

  /** Ends what was hosted in terms that are over. */
  look(): void {
    const { shard, topology, hosted } = this.#options;
    const [before, now] = [this.#known, topology.current()];
    if (before === now) return;
    this.#known = now;
    if (before.mapVersion === now.mapVersion) return;
    const isOver = (vshard: number): boolean =>
      before.owners[vshard] === shard && (now.owners[vshard] !== shard || now.terms[vshard] !== before.terms[vshard]);
    if (!before.owners.some((_, vshard) => isOver(vshard))) return;
    const { actors, barriers } = hosted();
    actors.moveAway((actorName, key) => isOver(vshardOfActor(now, actorName, key)));
    barriers.closeWhere(
      (name) => isOver(vshardOfBarrier(now, name)),
      (name) =>
        new ShardloomError(
          "ERR_STALE_EPOCH",
          `Cannot wait at barrier ${JSON.stringify(name)} as the term of the shard that hosted it is over: current value is version ${now.mapVersion} of the map`,
          { details: { barrier: name, mapVersion: now.mapVersion } },
        ),
    );
  }
}
