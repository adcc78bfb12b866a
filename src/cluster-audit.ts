/**
 * `cluster.audit()`: whether all copies of every vshard hold the same, by the hashes of what they hold.
 *
 * Invariant: only what two copies hold at the same LSN is compared, so a copy that is behind is never taken for one that differs. What was seen of
 * a copy stays known over all rounds: also copies that are written to all the time are level once each has been seen at the same LSN.
 */
import { abortError } from "../actors/call-options.ts";
import { ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { Clock } from "./runtime/clock.ts";
import { type Scheduler, withinMs } from "./runtime/scheduler.ts";
import type { VshardContent } from "./store/backup-manifest.ts";
import { holdsCopy, type TopologySnapshot } from "./topology/snapshot.ts";

/** Conditions of an audit. */
export interface AuditOptions {
  readonly signal?: AbortSignal;
  /** How long copies may take to become level, in ms. @default 10000 */
  readonly timeoutMs?: number;
}

/**
 * `same`: it was seen to hold what the reference does, at the same LSN. `differs`: it was seen to hold something else at the same LSN. `behind`: it was
 * never seen at an LSN at which the reference was. `silent`: its shard did not answer.
 */
export type CopyVerdict = "same" | "differs" | "behind" | "silent";

/** One copy, as it was seen last. */
export interface AuditedCopy {
  readonly shard: number;
  readonly role: "primary" | "replica";
  /** -1: it is being filled, or has never been. */
  readonly lsn: number;
  readonly hash: string;
  /** How many LSNs it was behind the reference. */
  readonly lag: number;
  readonly verdict: CopyVerdict;
}

/** The copies of one vshard. Compared with its primary's, or where that is elsewhere with the one that is ahead. */
export interface AuditedVshard {
  readonly vshard: number;
  readonly copies: readonly AuditedCopy[];
  /** Shards of other nodes that hold copies too, which were not looked at. */
  readonly elsewhere: readonly number[];
}

/** What an audit has found. */
export interface AuditReport {
  /** Whether every copy was looked at and found to be the same: never where some lie on other nodes, see {@link mergeAudits}. */
  readonly equal: boolean;
  /** Copies in all, and of each verdict. */
  readonly copies: number;
  readonly same: number;
  readonly differing: number;
  readonly behind: number;
  readonly silent: number;
  /** Copies on other nodes, which were not looked at and are not among `copies`. */
  readonly elsewhere: number;
  readonly vshards: readonly AuditedVshard[];
  readonly rounds: number;
  readonly elapsedMs: number;
}

const TIMEOUT_MS = 10_000;
/** Pause before the next round, in ms: doubled up to the longest. */
const PAUSE_MS = { first: 10, longest: 250 } as const;

/** Everything that was seen of the copies of one vshard. */
interface Seen {
  /** By shard: the newest content. */
  readonly newest: Map<number, VshardContent>;
  /** By shard: hash by LSN. */
  readonly hashes: Map<number, Map<number, string>>;
}

/** Collects what copies hold, of one node or of several, and compares. */
export class AuditBook {
  readonly #vshards: Map<number, Seen> = new Map();

  add(shard: number, contents: Iterable<VshardContent>): void {
    for (const content of contents) {
      const { vshard, lsn, hash } = content;
      const seen = this.#vshards.get(vshard) ?? { newest: new Map(), hashes: new Map() };
      this.#vshards.set(vshard, seen);
      seen.newest.set(shard, content);
      const hashes = seen.hashes.get(shard) ?? new Map<number, string>();
      seen.hashes.set(shard, hashes);
      if (lsn >= 0) hashes.set(lsn, hash);
    }
  }

  /** Compares the copies of a vshard. @param shards Who is to hold one @param elsewhere And who besides, that was not looked at */
  judge(vshard: number, shards: readonly number[], elsewhere: readonly number[] = []): AuditedVshard {
    const seen = this.#vshards.get(vshard);
    const present = shards.flatMap((shard) => {
      const content = seen?.newest.get(shard);
      return content === undefined ? [] : [{ shard, ...content }];
    });
    const ahead = [...present].sort((one, other) => other.lsn - one.lsn)[0];
    const reference = present.find(({ role }) => role === "primary") ?? ahead;
    const copies = shards.map((shard): AuditedCopy => {
      const content = seen?.newest.get(shard);
      if (seen === undefined || reference === undefined || content === undefined)
        return { shard, role: "replica", lsn: -1, hash: "", lag: 0, verdict: "silent" };
      const { role, lsn, hash } = content;
      const lag = Math.max(0, reference.lsn - lsn);
      return { shard, role, lsn, hash, lag, verdict: verdictOf(seen, reference.shard, shard) };
    });
    return { vshard, copies, elsewhere };
  }
}

function verdictOf({ hashes }: Seen, reference: number, shard: number): CopyVerdict {
  const expected = hashes.get(reference) as ReadonlyMap<number, string>;
  let verdict: CopyVerdict = "behind";
  for (const [lsn, hash] of hashes.get(shard) as ReadonlyMap<number, string>) {
    const other = expected.get(lsn);
    if (other === undefined) continue;
    if (other !== hash) return "differs";
    verdict = "same";
  }
  return verdict;
}

/** What an audit works on. */
export interface AuditParts {
  readonly control: Pick<ControlPlane, "ask">;
  readonly topology: () => TopologySnapshot;
  /** Shards of this node. */
  readonly ownShards: readonly number[];
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/**
 * Compares the copies that this node's shards hold, again and again until all are level or the time is over.
 *
 * @throws {ShardloomError} `ERR_ABORTED`, `ERR_UNAVAILABLE` when an engine has no hashes.
 */
export async function auditCopies(parts: AuditParts, options: AuditOptions = {}): Promise<AuditReport> {
  const { clock, scheduler } = parts;
  const { signal, timeoutMs = TIMEOUT_MS } = options;
  const startMs = clock.nowMs();
  const book = new AuditBook();
  const done = new Map<number, AuditedVshard>();
  let pauseMs: number = PAUSE_MS.first;
  for (let rounds = 1; ; rounds++) {
    const snapshot = parts.topology();
    const open = Array.from({ length: snapshot.vshards }, (_, vshard) => vshard).filter((vshard) => !done.has(vshard));
    const leftMs = Math.max(1, startMs + timeoutMs - clock.nowMs());
    await askAll(parts, book, open, leftMs, signal);
    const judged = open.map((vshard) => {
      const [own, elsewhere] = holders(snapshot, vshard, parts.ownShards);
      return book.judge(vshard, own, elsewhere);
    });
    for (const audited of judged) if (isSettled(audited)) done.set(audited.vshard, audited);
    const rest = judged.filter(({ vshard }) => !done.has(vshard));
    if (rest.length === 0 || clock.nowMs() - startMs + pauseMs >= timeoutMs) {
      const vshards = [...done.values(), ...rest].sort((one, other) => one.vshard - other.vshard);
      return reportOf(vshards, rounds, clock.nowMs() - startMs);
    }
    await new Promise<void>((resolve) => scheduler.timer(pauseMs, resolve));
    pauseMs = Math.min(2 * pauseMs, PAUSE_MS.longest);
  }
}

/**
 * Compares what audits of several nodes have found, as one audit of all of them. Copies that were written to between the audits may be told to be
 * `behind`; those of nodes of which no report is given are counted by `elsewhere`.
 */
export function mergeAudits(reports: readonly AuditReport[]): AuditReport {
  const book = new AuditBook();
  const holders = new Map<number, { readonly seen: Set<number>; readonly all: Set<number> }>();
  for (const { vshard, copies, elsewhere } of reports.flatMap(({ vshards }) => vshards)) {
    const { seen, all } = holders.get(vshard) ?? { seen: new Set<number>(), all: new Set<number>() };
    holders.set(vshard, { seen, all });
    for (const { shard, role, lsn, hash, verdict } of copies) {
      seen.add(shard);
      all.add(shard);
      if (verdict !== "silent") book.add(shard, [{ vshard, lsn, hash, role }]);
    }
    for (const shard of elsewhere) all.add(shard);
  }
  const merged = [...holders].map(([vshard, { seen, all }]) =>
    book.judge(
      vshard,
      [...seen],
      [...all].filter((shard) => !seen.has(shard)),
    ),
  );
  const most = (of: (report: AuditReport) => number): number => Math.max(0, ...reports.map(of));
  return reportOf(
    merged.sort((one, other) => one.vshard - other.vshard),
    most(({ rounds }) => rounds),
    most(({ elapsedMs }) => elapsedMs),
  );
}

async function askAll(
  { control, scheduler }: AuditParts,
  book: AuditBook,
  vshards: readonly number[],
  leftMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (signal?.aborted === true) throw abortError(signal);
  const answers = control.ask(async (worker, shard) => {
    const contents = await worker.audit(vshards).catch((error: unknown) => {
      if (ShardloomError.from(error).code === "ERR_UNAVAILABLE") throw error;
      return undefined; // it is lost: its successor is asked in the next round
    });
    if (contents !== undefined) book.add(shard, contents);
  });
  await Promise.all(answers.map((answer) => withinMs(scheduler, leftMs, answer)));
}

/** Who holds copies: shards of this node, and others. */
function holders(snapshot: TopologySnapshot, vshard: number, own: readonly number[]): [number[], number[]] {
  const all = Array.from({ length: snapshot.shards }, (_, shard) => shard).filter((shard) =>
    holdsCopy(snapshot, shard, vshard),
  );
  return [all.filter((shard) => own.includes(shard)), all.filter((shard) => !own.includes(shard))];
}

/** Whether more rounds would change nothing: a difference stays one. */
function isSettled({ copies }: AuditedVshard): boolean {
  return copies.some(({ verdict }) => verdict === "differs") || copies.every(({ verdict }) => verdict === "same");
}

function reportOf(vshards: readonly AuditedVshard[], rounds: number, elapsedMs: number): AuditReport {
  const copies = vshards.flatMap((audited) => audited.copies);
  const count = (verdict: CopyVerdict): number => copies.filter((copy) => copy.verdict === verdict).length;
  const same = count("same");
  const elsewhere = vshards.reduce((sum, audited) => sum + audited.elsewhere.length, 0);
  return {
    equal: same === copies.length && elsewhere === 0,
    copies: copies.length,
    same,
    differing: count("differs"),
    behind: count("behind"),
    silent: count("silent"),
    elsewhere,
    vshards,
    rounds,
    elapsedMs,
  };
}
