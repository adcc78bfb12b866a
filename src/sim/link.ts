/**
 * One direction between two nodes: its latency, its faults, what cuts or clogs it, its counters.
 *
 * Invariant: the link's times come from a stream of its own and its faults from points of their own, so that nothing that
 * happens on another link changes what happens here.
 */
import type { Random } from "../runtime/random.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import type { DrawnFault, FaultInjector, FaultKind, FaultPoint } from "./fault-types.ts";
import type { Loop } from "./loop-types.ts";
import {
  DROP,
  type LinkCounters,
  type MessageKind,
  type MessageOutcome,
  type MessageRecord,
  PASS,
  type ResolvedNetworkOptions,
  type Verdict,
} from "./network-types.ts";

type Counter = Exclude<keyof LinkCounters, "from" | "to">;

/** The drawn faults of packets, the one that decides first: what is lost cannot be late. */
const PACKET_FAULTS = ["drop", "corrupt", "duplicate", "delay", "reorder"] as const satisfies readonly FaultKind[];
type PacketFault = (typeof PACKET_FAULTS)[number];

export class Link {
  readonly from: string;
  readonly to: string;
  /** `n0>n1`. */
  readonly site: string;
  readonly counters: Record<Counter, number> = {
    sent: 0,
    delivered: 0,
    dropped: 0,
    delayed: 0,
    duplicated: 0,
    corrupted: 0,
    held: 0,
    sentBytes: 0,
  };
  /** Partitions that cut this direction, and clogs that hold it. */
  cuts = 0;
  clogs = 0;
  /** Since when nothing has come through; −1 while it does. */
  blockedSinceUs = -1;
  /** Draws how connections end here. */
  readonly endings: Random;
  readonly #latencies: Random;
  readonly #frameFaults: readonly FaultPoint[];
  readonly #datagramFaults: readonly FaultPoint[];
  readonly #options: ResolvedNetworkOptions;
  #busyUntilUs = 0;

  constructor(from: string, to: string, loop: Loop, injector: FaultInjector, options: ResolvedNetworkOptions) {
    this.from = from;
    this.to = to;
    this.site = `${from}>${to}`;
    this.endings = loop.stream(`network/${this.site}/endings`);
    this.#latencies = loop.stream(`network/${this.site}`);
    this.#options = options;
    this.#frameFaults = PACKET_FAULTS.map((kind) => injector.point(kind, this.site));
    this.#datagramFaults = PACKET_FAULTS.map((kind) => injector.point(kind, `${from}~${to}`));
  }

  /** When a packet that leaves now arrives, in µs from now: a whole number. */
  latencyUs(nowUs: number, bytes: number): number {
    const { baseLatencyUs, jitterUs, bytesPerSecond } = this.#options;
    const departsUs = Math.max(nowUs, this.#busyUntilUs) + (bytes * 1_000_000) / bytesPerSecond;
    this.#busyUntilUs = departsUs;
    return Math.round(departsUs - nowUs + baseLatencyUs - Math.log(1 - this.#latencies.float()) * jitterUs);
  }

  /** What the drawn faults say: every kind counts the packet, the first that hits decides. */
  drawVerdict(kind: MessageKind): Verdict {
    const points = kind === "datagram" ? this.#datagramFaults : this.#frameFaults;
    let verdict = PASS;
    for (let index = 0; index < points.length; index++) {
      const fault = (points[index] as FaultPoint).draw();
      if (fault !== undefined && verdict === PASS) verdict = verdictOf(fault);
    }
    return verdict;
  }
}

function verdictOf({ kind, size }: DrawnFault): Verdict {
  switch (kind as PacketFault) {
    case "drop":
      return DROP;
    case "corrupt":
      return { kind: "corrupt", at: size };
    case "duplicate":
      return { kind: "duplicate", delayMs: size * FAULT_TABLE.duplicate.scale };
    case "delay":
      return { kind: "deliver", delayMs: size * FAULT_TABLE.delay.scale };
    case "reorder":
      return { kind: "deliver", delayMs: size * FAULT_TABLE.reorder.scale };
  }
}

/** A record that is filled in as its packet goes on. */
export interface OpenRecord extends MessageRecord {
  endedUs: number;
  outcome: MessageOutcome;
}

/** The latest packets, in a list of bounded length. */
export class MessageRecords {
  readonly #limit: number;
  readonly #records: OpenRecord[] = [];
  #next = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  open(sentUs: number, link: Link, kind: MessageKind, bytes: number): OpenRecord | undefined {
    if (this.#limit === 0) return undefined;
    const record: OpenRecord = { sentUs, endedUs: -1, from: link.from, to: link.to, kind, bytes, outcome: "flying" };
    if (this.#records.length < this.#limit) this.#records.push(record);
    else this.#records[this.#next] = record;
    this.#next = (this.#next + 1) % this.#limit;
    return record;
  }

  /** In the order of sending. */
  list(): MessageRecord[] {
    if (this.#records.length < this.#limit) return [...this.#records];
    return [...this.#records.slice(this.#next), ...this.#records.slice(0, this.#next)];
  }
}
