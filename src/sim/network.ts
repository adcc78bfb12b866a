/**
 * SimNetwork: what lies between the nodes of a world. Each node gets a `NodeTransport`; every packet is judged by rules.
 *
 * Invariant: a packet's fate is the verdict of the first that does not pass it: partitions, clogs, the rules that users
 * installed in their order, the drawn faults. What a node sends to itself passes. Everything that happens to a packet is an
 * event of the loop, is traced and is counted; after `heal` only drawn faults are left.
 * Source: turmoil-net (fabric, rules). Divergence: rules may hold, duplicate and damage; connections survive lost packets.
 */
import { invalidArgument } from "../errors.ts";
import { payloadCopy } from "../runtime/payload-memory.ts";
import type { NodeTransport } from "../transport/transport.ts";
import { type Carrier, type Packet, Side } from "./connection.ts";
import { Dial, type DialFrom, type Enter, Refusal, SimNode } from "./endpoint.ts";
import type { FaultInjector } from "./fault-types.ts";
import { Link, MessageRecords, type OpenRecord } from "./link.ts";
import type { Loop } from "./loop-types.ts";
import {
  DROP,
  HOLD,
  type LinkCounters,
  type MessageKind,
  type MessageOutcome,
  type MessageRecord,
  type NetworkOptions,
  PASS,
  type ResolvedNetworkOptions,
  type Rule,
  type RuleGuard,
  resolveNetworkOptions,
  type Verdict,
} from "./network-types.ts";
import type { CutPair } from "./partitions.ts";

const MAX_RETRANSMIT_US = 1_000_000;

/** Words of the trace, made once. */
const TRACE = {
  dial: traceWords("dial"),
  accept: traceWords("accept"),
  frame: traceWords("frame"),
  close: traceWords("close"),
  reset: traceWords("reset"),
  datagram: traceWords("datagram"),
};

function traceWords(kind: MessageKind) {
  return { send: `send ${kind}`, deliver: `deliver ${kind}`, drop: `drop ${kind}`, hold: `hold ${kind}` };
}

/** How a crash looks from outside: the machine still answers for the dead process, or nothing answers. */
type Death = "reset" | "silent";

interface HeldPacket {
  readonly link: Link;
  readonly packet: Packet;
  readonly record: OpenRecord | undefined;
}

export class SimNetwork {
  readonly #loop: Loop;
  readonly #injector: FaultInjector;
  readonly #options: ResolvedNetworkOptions;
  readonly #links: Map<string, Map<string, Link>> = new Map();
  readonly #nodes: Map<string, SimNode> = new Map();
  readonly #deaths: Map<string, Death> = new Map();
  readonly #rules: Rule[] = [];
  /** Ways to take back what is installed now. */
  readonly #guards: Set<() => void> = new Set();
  readonly #held: Set<HeldPacket> = new Set();
  readonly #records: MessageRecords;
  readonly #carrier: Carrier;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming an option. */
  constructor(loop: Loop, injector: FaultInjector, options: NetworkOptions = {}) {
    this.#loop = loop;
    this.#injector = injector;
    this.#options = resolveNetworkOptions(options);
    this.#records = new MessageRecords(this.#options.recordLimit);
    const { retransmitMs, idleLimitMs } = this.#options;
    this.#carrier = {
      get nowUs() {
        return loop.nowUs;
      },
      idleLimitUs: idleLimitMs * 1000,
      transmit: (link, packet) => this.#transmit(link, packet),
      retransmitUs: (attempt) => Math.min(MAX_RETRANSMIT_US, Math.round(retransmitMs * 1000 * 2 ** attempt)),
      later: (delayUs, callback) => void loop.at(loop.nowUs + Math.round(delayUs), callback),
      answers: (node) => this.#deathOf(node) === "reset",
    };
  }

  /**
   * The access of a node that starts.
   *
   * @param incarnation Counts the starts of the node; a start after a crash has a larger one.
   * @param enter How callbacks reach the node. @default at once
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the node is up or the incarnation is not larger.
   */
  transport(node: string, incarnation: number, enter: Enter = (callback) => callback()): NodeTransport {
    const before = this.#nodes.get(node);
    const isUp = before?.isAlive === true && !before.isClosed;
    if (before !== undefined && (isUp || before.incarnation >= incarnation)) {
      const rule = isUp ? "one of a node that has crashed or closed" : `above ${before.incarnation}`;
      throw invalidArgument("open transport", "incarnation", rule, incarnation);
    }
    const created = new SimNode(this.#dialFrom, node, incarnation, enter);
    this.#nodes.set(node, created);
    return created;
  }

  /**
   * A node is dead at once: nothing is called in it any more; its peers find out by resets or by the idle limit.
   *
   * @param what `process`: its machine goes on, and tells. `node`: it may be the machine too, and then nobody does.
   */
  crash(node: string, what: "node" | "process" = "node"): void {
    const dead = this.#nodes.get(node);
    if (dead === undefined || !dead.isAlive) return;
    const drawn = this.#loop.stream(`network/${node}/${dead.incarnation}`).float() < 0.5;
    const isMachine = drawn && what === "node";
    this.#deaths.set(node, isMachine ? "silent" : "reset");
    dead.isAlive = false;
    for (const side of dead.takeSides()) {
      side.crash();
      if (!isMachine) side.reset();
      this.#timeOutLater(side.other);
    }
    // Nobody sends their closes again.
    for (const { other } of dead.closing) this.#timeOutLater(other);
    dead.closing.clear();
  }

  #timeOutLater(side: Side): void {
    this.#carrier.later(this.#carrier.idleLimitUs, () => {
      if (!side.isClosed) side.timeOut();
    });
  }

  /** Installs a rule behind those that are there. */
  install(rule: Rule): RuleGuard {
    this.#rules.push(rule);
    return this.#guard(() => {
      this.#rules.splice(this.#rules.indexOf(rule), 1);
    });
  }

  /** Cuts directions: every packet is lost. */
  cut(pairs: readonly CutPair[]): RuleGuard {
    return this.#block(pairs, "cuts");
  }

  /** Clogs directions: every packet waits until the end, then all go on. */
  clog(pairs: readonly CutPair[]): RuleGuard {
    return this.#block(pairs, "clogs");
  }

  /** Removes all partitions, clogs and rules; what they held goes on. */
  heal(): void {
    for (const undo of this.#guards) undo();
    this.#guards.clear();
    this.#release();
  }

  /** Per link that was used, in the order of first use. */
  counters(): LinkCounters[] {
    return [...this.#links.values()].flatMap((links) =>
      [...links.values()].map(({ from, to, counters }) => ({ from, to, ...counters })),
    );
  }

  /** The latest packets, in the order of sending. */
  records(): readonly MessageRecord[] {
    return this.#records.list();
  }

  readonly #dialFrom: DialFrom = (node, peer, handler) => {
    const there = this.#link(node.name, peer);
    const [dialler, acceptor] = Side.pair(this.#carrier, there, this.#link(peer, node.name));
    dialler.handler = handler;
    dialler.endpoint = node;
    node.sides.add(dialler);
    const timeoutUs = this.#options.dialTimeoutMs * 1000;
    this.#carrier.later(timeoutUs, () => dialler.refuse(`nothing answered for ${this.#options.dialTimeoutMs} ms`));
    this.#transmit(there, new Dial(this.#carrier, there, dialler, () => this.#arrive(dialler, acceptor)));
    return dialler;
  };

  /** @returns false when the dial is lost as nothing answers at all. */
  #arrive(dialler: Side, acceptor: Side): boolean {
    const node = this.#nodes.get(dialler.peer);
    const accept = node?.accept;
    if (node === undefined || !node.isAlive || accept === undefined) {
      if (this.#deathOf(dialler.peer) === "silent") return false;
      this.#transmit(acceptor.link, new Refusal(() => dialler.refuse("nobody listens there")));
      return true;
    }
    if (acceptor.isClosed) return true;
    acceptor.endpoint = node;
    node.sides.add(acceptor);
    node.enter(() => {
      if (!acceptor.isClosed) acceptor.accept(node, accept);
    });
    return true;
  }

  #deathOf(name: string): Death {
    return this.#nodes.get(name)?.isAlive === false ? (this.#deaths.get(name) ?? "reset") : "reset";
  }

  #link(from: string, to: string): Link {
    let links = this.#links.get(from);
    if (links === undefined) {
      links = new Map();
      this.#links.set(from, links);
    }
    let link = links.get(to);
    if (link === undefined) {
      link = new Link(from, to, this.#loop, this.#injector, this.#options);
      links.set(to, link);
    }
    return link;
  }

  #block(pairs: readonly CutPair[], field: "cuts" | "clogs"): RuleGuard {
    const links = pairs.map(({ from, to }) => this.#link(from, to));
    for (const link of links) {
      link[field]++;
      if (link.blockedSinceUs < 0) this.#startIdling(link);
    }
    return this.#guard(() => {
      for (const link of links) {
        link[field]--;
        if (link.cuts === 0 && link.clogs === 0) link.blockedSinceUs = -1;
      }
    });
  }

  /** Connections ask each other for signs of life, so a blocked direction ends them whether or not anything is sent. */
  #startIdling(link: Link): void {
    const sinceUs = this.#loop.nowUs;
    link.blockedSinceUs = sinceUs;
    this.#carrier.later(this.#carrier.idleLimitUs, () => {
      if (link.blockedSinceUs !== sinceUs) return;
      for (const side of [...(this.#nodes.get(link.to)?.sides ?? [])]) {
        if (side.peer === link.from) side.timeOut();
      }
    });
  }

  #guard(undo: () => void): RuleGuard {
    this.#guards.add(undo);
    return {
      uninstall: () => {
        if (!this.#guards.delete(undo)) return;
        undo();
        this.#release();
      },
    };
  }

  /** Judges again what is held: another rule may hold it on. */
  #release(): void {
    const held = [...this.#held];
    this.#held.clear();
    for (const { link, packet, record } of held) this.#judge(link, packet, record);
  }

  #transmit(link: Link, packet: Packet): void {
    const bytes = packet.data.length;
    link.counters.sent++;
    link.counters.sentBytes += bytes;
    this.#loop.trace(TRACE[packet.kind].send, link.site, bytes);
    this.#judge(link, packet, this.#records.open(this.#loop.nowUs, link, packet.kind, bytes));
  }

  #judge(link: Link, packet: Packet, record: OpenRecord | undefined): void {
    const verdict = this.#verdict(link, packet);
    switch (verdict.kind) {
      case "pass":
        this.#carry(link, packet, record, 0, packet.data);
        return;
      case "deliver":
        link.counters.delayed++;
        this.#carry(link, packet, record, verdict.delayMs, packet.data);
        return;
      case "drop":
        this.#drop(link, packet, record);
        return;
      case "duplicate":
        link.counters.duplicated++;
        this.#carry(link, packet, record, 0, packet.data);
        if (packet.kind === "datagram") this.#carry(link, packet, undefined, verdict.delayMs, packet.data);
        return;
      case "corrupt":
        if (packet.data.length === 0) {
          this.#drop(link, packet, record);
          return;
        }
        link.counters.corrupted++;
        this.#carry(link, packet, record, 0, withFlippedBit(packet.data, verdict.at));
        return;
      case "hold":
        this.#hold(link, packet, record);
    }
  }

  #verdict(link: Link, packet: Packet): Verdict {
    if (link.from === link.to) return PASS;
    if (link.cuts > 0) return DROP;
    if (link.clogs > 0) return HOLD;
    for (const rule of this.#rules) {
      const { from, to } = link;
      const { kind, data, attempt } = packet;
      const verdict = rule({ from, to, kind, data, attempt });
      if (verdict.kind !== "pass") return verdict;
    }
    return link.drawVerdict(packet.kind);
  }

  #carry(link: Link, packet: Packet, record: OpenRecord | undefined, delayMs: number, data: Uint8Array): void {
    const latencyUs = link.latencyUs(this.#loop.nowUs, data.length) + delayMs * 1000;
    this.#carrier.later(latencyUs, () => {
      link.counters.delivered++;
      this.#end(record, "delivered");
      this.#loop.trace(TRACE[packet.kind].deliver, link.site, data.length);
      packet.arrived(payloadCopy(data)); // the receiver's own; the sender may have sent the same bytes to others
    });
  }

  #drop(link: Link, packet: Packet, record: OpenRecord | undefined): void {
    link.counters.dropped++;
    this.#end(record, "dropped");
    this.#loop.trace(TRACE[packet.kind].drop, link.site, packet.data.length);
    packet.dropped();
  }

  #hold(link: Link, packet: Packet, record: OpenRecord | undefined): void {
    link.counters.held++;
    if (record !== undefined) record.outcome = "held";
    this.#loop.trace(TRACE[packet.kind].hold, link.site, packet.data.length);
    const held = { link, packet, record };
    this.#held.add(held);
    this.#carrier.later(this.#carrier.idleLimitUs, () => {
      if (this.#held.has(held)) packet.expired();
    });
  }

  #end(record: OpenRecord | undefined, outcome: MessageOutcome): void {
    if (record === undefined) return;
    record.endedUs = this.#loop.nowUs;
    record.outcome = outcome;
  }
}

function withFlippedBit(data: Uint8Array, at: number): Uint8Array {
  const bit = Math.floor(at * data.length * 8);
  const damaged = data.slice();
  damaged[bit >>> 3] = (damaged[bit >>> 3] as number) ^ (1 << (bit & 7));
  return damaged;
}
