/**
 * The quiet phase: nothing goes wrong any more, so everything must come right again, within bounds.
 *
 * Invariant: a run that does not converge has a violation that says what stood in the way; waiting longer than the bounds proves nothing.
 * Source: TigerBeetle's VOPR, whose liveness mode heals a core of the cluster and demands that it converges.
 */
import type { ClusterStats } from "../cluster-stats.ts";
import { describeValue, ShardloomError } from "../errors.ts";
import type { Clients } from "./clients.ts";
import { firstDifference } from "./copy-contents.ts";
import type { History } from "./history.ts";
import type { Violation } from "./history-types.ts";
import type { WorldLoop } from "./loop.ts";
import type { SimNetwork } from "./network.ts";
import type { NodeService } from "./node-service.ts";
import { cutPairs } from "./partitions.ts";

/** Simulated time in which all that is not lost must serve again, and answer. */
const CONVERGE_LIMIT_MS = 120_000;
/** Simulated time between two looks. */
const LOOK_MS = 500;
/** How many of their own deadlines operations that are still open may take. */
const OPEN_DEADLINES = 4;
const OPEN_LEAST_MS = 30_000;

/** What the phase works on. */
export interface QuietPhase {
  readonly loop: WorldLoop;
  readonly services: readonly NodeService[];
  readonly clients: Clients;
  /** Nodes that hold each acknowledged write: where so many are lost, some vshards have no majority any more. */
  readonly acks: number;
  /** Whether more went wrong than copies and disks can make good. Then what a lost node had may have been all that was left. */
  readonly mayForget: () => boolean;
  /** Nodes that are cut off from all others, of which nothing is demanded. @default none */
  readonly without?: readonly string[];
  /** Whether others take over what those are primary of. @default false */
  readonly leases?: boolean;
  /** Runs the loop for so long, or until it is stopped. */
  readonly drive: (limitMs: number) => Promise<void>;
}

/** Waits until every node that is not lost serves and gets an answer from every shard. @returns what does not */
export async function converge(phase: QuietPhase): Promise<Violation[]> {
  const { drive, without = [] } = phase;
  const looks = new Looks(phase);
  looks.start();
  await drive(CONVERGE_LIMIT_MS);
  const healed = without.length === 0 ? "everything" : `everything but ${without.join(" and ")}`;
  return looks.end().map(([name, reason]) => ({
    rule: "converges",
    message: `${name} has not converged ${CONVERGE_LIMIT_MS} ms after ${healed} healed: ${reason}`,
    entries: [],
  }));
}

/**
 * Some nodes stay cut off until the others have converged without them.
 *
 * @param without Which ones, see `minority.ts`; nothing is done when there are none.
 * @param leases Whether the others take over what those are primary of: then they stand still, as whoever reaches the store of leases keeps its own.
 * @returns what does not converge
 */
export async function convergeWithout(
  without: readonly string[],
  phase: QuietPhase,
  network: SimNetwork,
  leases: boolean,
): Promise<Violation[]> {
  if (without.length === 0) return [];
  const { services, loop } = phase;
  loop.trace("cut off", without.join(" "));
  const names = services.map(({ name }) => name);
  const cut = network.cut(cutPairs("partition", without, names));
  const away = services.filter(({ name }) => without.includes(name));
  if (leases) for (const { node } of away) node.pause();
  const violations = await converge({ ...phase, without, leases });
  if (leases) for (const { node } of away) node.resume();
  cut.uninstall();
  return violations;
}

/** Looks at every node again and again, until nothing is wrong any more. */
class Looks {
  readonly #loop: WorldLoop;
  readonly #services: readonly NodeService[];
  readonly #acks: number;
  readonly #mayForget: () => boolean;
  readonly #without: readonly NodeService[];
  readonly #leases: boolean;
  readonly #reasons: Map<string, string> = new Map();
  #over = false;

  constructor({ loop, services, acks, mayForget, without = [], leases = false }: QuietPhase) {
    this.#loop = loop;
    this.#services = services.filter(({ name }) => !without.includes(name));
    this.#acks = acks;
    this.#mayForget = mayForget;
    this.#without = services.filter(({ name }) => without.includes(name));
    this.#leases = leases;
  }

  /** No node is lost: then everything must be as in the beginning, else as good as a majority can be, where there is one. */
  #wanted(): "whole" | "majority" | "answers" {
    const lost = this.#without.length + this.#services.filter((service) => service.lost).length;
    if (lost === 0) return "whole";
    return lost < this.#acks && !this.#mayForget() ? "majority" : "answers";
  }

  start(): void {
    for (const service of this.#services) {
      if (service.lost) continue;
      service.start();
      this.#reasons.set(service.name, "it gives no answer");
      this.#look(service);
    }
  }

  /** @returns names and what is wrong with them */
  end(): [string, string][] {
    this.#over = true;
    return [...this.#reasons];
  }

  #look(service: NodeService): void {
    if (this.#over) return;
    const { serving, node, lastError } = service;
    if (service.lost) {
      this.#found(service); // it has refused its disk
      return;
    }
    if (serving === undefined) {
      this.#again(service, `it does not serve${describe(lastError)}`);
      return;
    }
    node.main?.post(0, "look", () => {
      serving.cluster.clusterStats().then(
        (stats) => this.#judge(service, stats),
        (error: unknown) => this.#again(service, `its statistics fail${describe(error)}`),
      );
    });
  }

  #judge(service: NodeService, stats: ClusterStats): void {
    const reason = stillWrong(stats, this.#wanted()) ?? this.#notTaken(service);
    if (reason !== undefined) {
      this.#again(service, `${reason}${unwell(service)}`);
      return;
    }
    this.#found(service);
  }

  /** Of which vshards a node still takes one that is cut off for the primary, though another may be. */
  #notTaken({ serving }: NodeService): string | undefined {
    if (!this.#leases || serving === undefined) return undefined;
    const away = new Set(this.#without.flatMap(({ node }) => node.shards));
    const { owners } = serving.cluster.topology;
    const left = Array.from(owners).flatMap((owner, vshard) => (away.has(owner) ? [vshard] : []));
    return left.length === 0 ? undefined : `nobody has taken over vshards ${left.join(", ")}`;
  }

  /** Nothing is wrong with a service any more. */
  #found(service: NodeService): void {
    this.#reasons.delete(service.name);
    if (this.#reasons.size > 0 || this.#over) return;
    // Who waits for what a lost node had is not level.
    const difference = this.#wanted() === "answers" ? undefined : this.#difference();
    if (difference === undefined) this.#loop.stop();
    else this.#again(service, difference);
  }

  /** What copies do not agree on, in words. */
  #difference(): string | undefined {
    const [first] = this.#services.flatMap(({ serving }) => (serving === undefined ? [] : [serving.cluster]));
    if (first === undefined) return undefined;
    const { groups } = first.topology;
    const copiesOf = (vshard: number): ArrayLike<number> =>
      groups.find(({ vshards }) => vshards.includes(vshard))?.copies ?? [];
    return firstDifference(
      this.#services.flatMap(({ node }) => node.memories()),
      copiesOf,
    );
  }

  #again(service: NodeService, reason: string): void {
    if (this.#over) return;
    this.#reasons.set(service.name, reason);
    this.#loop.at(this.#loop.nowUs + LOOK_MS * 1000, () => this.#look(service));
  }
}

/** Waits until every operation of a client has ended. @returns those that wait for ever */
export async function settle(phase: QuietPhase, history: History, requestTimeoutMs: number): Promise<Violation[]> {
  const { loop, clients } = phase;
  const limitMs = Math.max(OPEN_LEAST_MS, OPEN_DEADLINES * requestTimeoutMs);
  const look = (): void => {
    if (clients.idle) loop.stop();
    else loop.at(loop.nowUs + LOOK_MS * 1000, look);
  };
  look();
  if (!clients.idle) await phase.drive(limitMs);
  return history.open.map((entry) => ({
    rule: "no operation waits for ever",
    message: `${entry.f} of process ${entry.process} has no answer ${limitMs} ms after everything healed`,
    entries: [entry],
  }));
}

/** What a node's statistics say against having converged. */
function stillWrong(stats: ClusterStats, wanted: "whole" | "majority" | "answers"): string | undefined {
  if (!stats.quorum && wanted !== "answers") return "some vshards have no majority of their copies";
  if (wanted !== "whole") return undefined;
  if (stats.health !== "green") return `its health is ${stats.health}`;
  return stats.missing.length > 0 ? `collections do not answer: ${stats.missing.join(", ")}` : undefined;
}

/** Members that are not up, as a node sees them. */
function unwell({ serving }: NodeService): string {
  const members = serving?.cluster.members().filter(({ state }) => state !== "up") ?? [];
  if (members.length === 0) return "";
  return `; ${members.map(({ id, state }) => `${id} is ${state}`).join(", ")}`;
}

function describe(error: unknown): string {
  if (error === undefined) return "";
  return `: ${ShardloomError.is(error) ? `${error.code}, ` : ""}${error instanceof Error ? error.message : describeValue(error)}`;
}
