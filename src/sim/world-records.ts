/**
 * What the invariants of the system are judged by: counters of all messages, every map of vshards that any node had, what shards did as
 * primaries, and who was declared down.
 *
 * Invariant: nothing that is recorded changes what happens in the world; counters are read when nothing is open any more.
 */
import { PRIMARY_ACTS, type PrimaryAct, type PrimaryActKind } from "../../actors/replication/primary-acts.ts";
import type { ClusterInfo } from "../cluster-types.ts";
import type { LinkStats } from "../plane/node-links.ts";
import type { Fault } from "./fault-types.ts";
import { Findings, MAX_FINDINGS } from "./findings.ts";
import type { Violation } from "./history-types.ts";
import {
  type MapView,
  type MessageCounts,
  messagesAreConserved,
  onePrimaryActs,
  onePrimaryPerEpoch,
  type PrimaryDeed,
} from "./invariants.ts";
import type { NodeService } from "./node-service.ts";
import type { QuietPhase } from "./quiet-phase.ts";

/** Simulated time in which all nodes must tell their counters. */
const COUNTERS_LIMIT_MS = 30_000;
/** Simulated time between two looks at counters that do not add up. */
const COUNTERS_LOOK_MS = 1_000;

/** Every different map of vshards that nodes had, in the order in which they were seen. */
export class MapRecords {
  readonly #views: MapView[] = [];
  readonly #seen: Map<string, number> = new Map();

  /** Takes the map that a node has now, if it has not been taken. */
  look({ name, node, serving }: NodeService): void {
    if (serving === undefined) return;
    const { topology } = serving.cluster;
    const life = `${name}#${node.incarnation}`;
    if (this.#seen.get(life) === topology.topologyEpoch) return;
    this.#seen.set(life, topology.topologyEpoch);
    const mapEpoch = topology.mapVersion;
    const owners = Array.from(topology.owners);
    // A node that changes its mind within an epoch has two maps of it.
    const isKnown = this.#views.some(
      (view) =>
        view.node === life && view.mapEpoch === mapEpoch && owners.every((owner, at) => owner === view.owners[at]),
    );
    if (!isKnown) this.#views.push({ node: life, mapEpoch, owners });
  }

  violations(): readonly Violation[] {
    return onePrimaryPerEpoch(this.#views);
  }
}

const DEEDS: Readonly<Record<PrimaryActKind, string>> = {
  append: "gave an LSN to a write",
  acknowledge: "acknowledged a write",
  read: "answered a strong read",
};

/** What shards of a world did as primaries: of each vshard who begins to act when another one, or it in another term, did before. */
export class ActRecords {
  readonly #deeds: PrimaryDeed[] = [];
  /** By vshard. */
  readonly #last: Map<number, PrimaryAct> = new Map();
  readonly #hear: (message: unknown) => void = (message) => this.#take(message as PrimaryAct);

  /** All shards of a world are in this thread, and a thread runs one world. */
  listen(): void {
    PRIMARY_ACTS.subscribe(this.#hear);
  }

  close(): void {
    PRIMARY_ACTS.unsubscribe(this.#hear);
  }

  violations(): readonly Violation[] {
    return onePrimaryActs(this.#deeds);
  }

  #take(act: PrimaryAct): void {
    const { kind, vshard, term: epoch, shard } = act;
    const last = this.#last.get(vshard);
    if (last !== undefined && last.term === epoch && last.shard === shard) return;
    this.#last.set(vshard, act);
    this.#deeds.push({ what: DEEDS[kind], vshard, epoch, shard });
  }
}

/** Who was declared down while clients ran. */
export class DeathRecords {
  readonly #told: string[] = [];
  #isOpen = false;

  /** Hears of what a node's cluster says of its members. */
  watch({ name, serving }: NodeService): void {
    serving?.cluster.on("member-changed", ({ member, to, reason }) => {
      if (this.#isOpen && to === "down") this.#told.push(`${name} declares ${member.id} down: ${reason}`);
    });
  }

  /** What is said from now on counts, or no more. */
  record(isOpen: boolean): void {
    this.#isOpen = isOpen;
  }

  /** Where nothing but clocks went wrong, nobody is down. @param faults Those that hit */
  violations(faults: readonly Fault[]): readonly Violation[] {
    const findings = new Findings("nobody is down for a clock");
    if (faults.every(({ kind }) => kind.startsWith("clock-"))) for (const message of this.#told) findings.add(message);
    return findings.violations;
  }
}

/** Reads the counters of all nodes and judges them, again until what is still open, requests to lost nodes say, must have an outcome. */
export async function judgeMessages(phase: QuietPhase): Promise<readonly Violation[]> {
  const endUs = phase.loop.nowUs + COUNTERS_LIMIT_MS * 1000;
  for (;;) {
    const violations = await lookAtMessages(phase);
    if (violations.length === 0 || phase.loop.nowUs >= endUs) return violations;
    await phase.drive(COUNTERS_LOOK_MS);
  }
}

async function lookAtMessages({ services, loop, drive }: QuietPhase): Promise<readonly Violation[]> {
  const counts: MessageCounts[] = [];
  const asked = services.filter(({ serving }) => serving !== undefined);
  const silent = new Set(asked.map(({ name }) => name));
  let open = asked.length;
  const ended = (): void => {
    open--;
    if (open === 0) loop.stop();
  };
  for (const { name, node, serving } of asked) {
    node.main?.post(0, "counters", () => {
      serving?.cluster.info().then((info) => {
        counts.push(...linkCounts(name, serving.cluster.linkStats()), ...nodeCounts(name, info));
        silent.delete(name);
        ended();
      }, ended);
    });
  }
  if (open > 0) await drive(COUNTERS_LIMIT_MS);
  const untold = [...silent].map((name) => `${name} does not tell its counters`);
  return [
    ...untold.map((message) => ({ rule: "messages are conserved", message, entries: [] })),
    ...messagesAreConserved(counts).slice(0, MAX_FINDINGS),
  ];
}

/** What one node sent to others. What is open has no outcome yet, as it should. */
function linkCounts(node: string, stats: readonly LinkStats[]): MessageCounts[] {
  return stats.map(({ peer, counters: { sent, delivered, rejected, dead, inDoubt, open } }) => ({
    where: `${node}>${peer}`,
    sent: sent - open,
    delivered,
    rejected,
    dead,
    inDoubt,
  }));
}

/** What the node's clients sent, and what its actors received. */
function nodeCounts(node: string, { client, workers }: ClusterInfo): MessageCounts[] {
  const { accepted, told, replied, failed, timedOut, cancelled } = client;
  const asked = {
    where: `clients of ${node}`,
    sent: accepted,
    delivered: told + replied,
    rejected: failed,
    dead: timedOut + cancelled,
    inDoubt: 0,
  };
  const received = workers.flatMap(({ shard, stats }): MessageCounts[] => {
    const { received: sent, delivered, rejected, dead } = (stats?.actors ?? {}) as Partial<ActorCounts>;
    if (sent === undefined || delivered === undefined || rejected === undefined || dead === undefined) return [];
    const letters = Object.values(dead).reduce((sum, count) => sum + count, 0);
    return [{ where: `actors of shard ${shard} on ${node}`, sent, delivered, rejected, dead: letters, inDoubt: 0 }];
  });
  return [asked, ...received];
}

/** Of an actor system's counters, what is counted here. */
interface ActorCounts {
  readonly received: number;
  readonly delivered: number;
  readonly rejected: number;
  readonly dead: Readonly<Record<string, number>>;
}
