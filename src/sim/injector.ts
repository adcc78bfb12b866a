/**
 * FaultInjector: decides at every opportunity whether a fault hits, by rates and seed or by a list, and keeps what hit.
 *
 * Invariant: an opportunity is a kind, a site and an ordinal; whether it is hit depends on these and the seed (or list)
 * alone, never on other draws. So the list that a run recorded, replayed, hits exactly where that run was hit, and leaving
 * one out of the list moves none of the others.
 * Cost: a comparison and a decrement per opportunity, as the distance to the next hit is drawn instead of each opportunity.
 */
import type { Random } from "../runtime/random.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import type { DrawnFault, Fault, FaultInjector, FaultKind, FaultPoint, FaultRates, TimedFault } from "./fault-types.ts";

/** Where the next hit of a point comes from. Undefined: there is none any more. */
type NextHit = () => { readonly ordinal: number; readonly size: number } | undefined;

/** Told of every drawn fault when it hits: for the trace. */
type OnHit = (fault: DrawnFault) => void;

const ignore: OnHit = () => undefined;
const NEVER = -1;
const OFF: FaultPoint = { draw: () => undefined };

/**
 * An injector that draws.
 *
 * @param rates As {@link resolveFaults} gives them.
 * @param timed As {@link planTimed} gives them.
 */
export function createFaultInjector(
  rates: FaultRates,
  streamOf: (name: string) => Random,
  timed: readonly TimedFault[],
  onHit: OnHit = ignore,
): FaultInjector {
  return new Injector(timed, onHit, (kind, site) => {
    const rate = rates[kind] ?? 0;
    if (rate <= 0 || FAULT_TABLE[kind].form !== "drawn") return undefined;
    return drawnHits(rate, streamOf(`fault/${kind}/${site}`), FAULT_TABLE[kind].scale > 0);
  });
}

/** An injector that hits exactly where a list says. */
export function createReplayInjector(faults: readonly Fault[], onHit: OnHit = ignore): FaultInjector {
  const lists = new Map<string, DrawnFault[]>();
  for (const fault of faults) {
    if ("atMs" in fault) continue;
    const key = `${fault.kind}/${fault.site}`;
    const list = lists.get(key);
    if (list === undefined) lists.set(key, [fault]);
    else list.push(fault);
  }
  const timed = faults.filter((fault) => "atMs" in fault).sort((one, other) => one.atMs - other.atMs);
  return new Injector(timed, onHit, (kind, site) => {
    const list = lists.get(`${kind}/${site}`);
    return list === undefined ? undefined : listedHits(list);
  });
}

/** Gaps between hits are geometric: the same as a draw per opportunity, at the cost of a draw per hit. */
function drawnHits(rate: number, random: Random, hasSize: boolean): NextHit {
  const logMiss = Math.log1p(-rate); // -Infinity for a rate of 1: every gap is 0
  let ordinal = -1;
  return () => {
    const gap = Math.floor(Math.log1p(-random.float()) / logMiss);
    ordinal += 1 + gap;
    const size = random.float();
    return { ordinal, size: hasSize ? size : 0 };
  };
}

function listedHits(list: readonly DrawnFault[]): NextHit {
  const sorted = [...list].sort((one, other) => one.ordinal - other.ordinal);
  let next = 0;
  let last = -1;
  return () => {
    while (next < sorted.length && (sorted[next] as DrawnFault).ordinal <= last) next++; // listed twice
    const hit = sorted[next++];
    if (hit !== undefined) last = hit.ordinal;
    return hit;
  };
}

class Injector implements FaultInjector {
  readonly timed: readonly TimedFault[];
  readonly injected: Fault[] = [];
  readonly #hit: OnHit;
  readonly #hitsOf: (kind: FaultKind, site: string) => NextHit | undefined;
  readonly #points: Map<FaultKind, Map<string, FaultPoint>> = new Map();
  readonly #live: Point[] = [];
  #isQuiet = false;

  constructor(
    timed: readonly TimedFault[],
    onHit: OnHit,
    hitsOf: (kind: FaultKind, site: string) => NextHit | undefined,
  ) {
    this.timed = timed;
    this.#hit = (fault) => {
      this.injected.push(fault);
      onHit(fault);
    };
    this.#hitsOf = hitsOf;
  }

  draw(kind: FaultKind, site: string): DrawnFault | undefined {
    return this.point(kind, site).draw();
  }

  point(kind: FaultKind, site: string): FaultPoint {
    const bySite = this.#points.get(kind);
    return bySite?.get(site) ?? this.#addPoint(kind, site);
  }

  began(fault: TimedFault): void {
    this.injected.push(fault);
  }

  quiet(): void {
    this.#isQuiet = true;
    for (const point of this.#live) point.stop();
  }

  #addPoint(kind: FaultKind, site: string): FaultPoint {
    const hits = this.#isQuiet ? undefined : this.#hitsOf(kind, site);
    const point = hits === undefined ? OFF : new Point(kind, site, hits, this.#hit);
    if (point instanceof Point) this.#live.push(point);
    const bySite = this.#points.get(kind);
    if (bySite === undefined) this.#points.set(kind, new Map([[site, point]]));
    else bySite.set(site, point);
    return point;
  }
}

class Point implements FaultPoint {
  readonly #kind: FaultKind;
  readonly #site: string;
  readonly #next: NextHit;
  readonly #hit: OnHit;
  /** Opportunities before the next hit; NEVER when there is none. */
  #before = NEVER;
  #ordinal = -1;
  #size = 0;

  constructor(kind: FaultKind, site: string, next: NextHit, hit: OnHit) {
    this.#kind = kind;
    this.#site = site;
    this.#next = next;
    this.#hit = hit;
    this.#aim();
  }

  draw(): DrawnFault | undefined {
    if (this.#before !== 0) {
      if (this.#before > 0) this.#before--;
      return undefined;
    }
    const fault: DrawnFault = { kind: this.#kind, site: this.#site, ordinal: this.#ordinal, size: this.#size };
    this.#hit(fault);
    this.#aim();
    return fault;
  }

  stop(): void {
    this.#before = NEVER;
  }

  #aim(): void {
    const hit = this.#next();
    if (hit === undefined) {
      this.#before = NEVER;
      return;
    }
    this.#before = hit.ordinal - this.#ordinal - 1;
    this.#ordinal = hit.ordinal;
    this.#size = hit.size;
  }
}
