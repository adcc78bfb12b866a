/** Nodes that talk over a simulated network, each remembering what it sent and was told. */
import { ShardloomError } from "../../src/errors.ts";
import type { FaultInjector } from "../../src/sim/fault-types.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import { SimNetwork } from "../../src/sim/network.ts";
import type { NetworkOptions } from "../../src/sim/network-types.ts";
import type { ConnectionHandler, NodeConnection, NodeTransport } from "../../src/transport/transport.ts";
import { TestLoop } from "./test-loop.ts";

/** One end of a connection, as its node saw it. */
export interface End {
  readonly node: string;
  readonly incarnation: number;
  readonly peer: string;
  connection: NodeConnection;
  /** What was said before the end was closed here. */
  readonly sent: Uint8Array[];
  readonly received: Uint8Array[];
  readonly datagrams: Uint8Array[];
  opened: number;
  /** What came after the close, or in a dead node. */
  late: number;
  closed: ShardloomError | undefined;
  closedUs: number;
  /** The other end, found by the greeting that the dialler sends first. */
  other: End | undefined;
}

const END = new ShardloomError("ERR_CLOSED", "enough");

export class NetworkWorld {
  readonly loop: TestLoop;
  readonly network: SimNetwork;
  readonly ends: End[] = [];
  readonly #transports: Map<string, NodeTransport> = new Map();
  readonly #incarnations: Map<string, number> = new Map();
  readonly #paused: Map<string, (() => void)[]> = new Map();
  #sequence = 0;

  constructor(
    seed: number,
    nodes: readonly string[],
    injector: FaultInjector = createReplayInjector([]),
    options: NetworkOptions = {},
    loop: TestLoop = new TestLoop(seed),
  ) {
    this.loop = loop;
    this.network = new SimNetwork(this.loop, injector, options);
    for (const node of nodes) this.start(node);
  }

  start(node: string): void {
    const incarnation = (this.#incarnations.get(node) ?? 0) + 1;
    this.#incarnations.set(node, incarnation);
    const transport = this.network.transport(node, incarnation, (callback) => {
      const queue = this.#paused.get(node);
      if (queue === undefined) callback();
      else queue.push(callback);
    });
    this.#transports.set(node, transport);
    transport.listen((connection) => {
      const end = this.#end(node, connection.peer);
      end.connection = connection;
      return this.#handler(end);
    });
  }

  isUp(node: string): boolean {
    return this.#transports.has(node);
  }

  crash(node: string): void {
    this.network.crash(node);
    this.#transports.delete(node);
    this.resume(node);
  }

  /** The node takes nothing until it is resumed. */
  pause(node: string): void {
    if (!this.#paused.has(node)) this.#paused.set(node, []);
  }

  resume(node: string): void {
    const queue = this.#paused.get(node) ?? [];
    this.#paused.delete(node);
    for (const callback of queue) callback();
  }

  closeTransport(node: string): void {
    this.#transports.get(node)?.close();
    this.#transports.delete(node);
  }

  /** Dials and sends a greeting at once, by which the two ends are matched. */
  dial(node: string, peer: string): End | undefined {
    const transport = this.#transports.get(node);
    if (transport === undefined) return undefined;
    const end = this.#end(node, peer);
    end.connection = transport.dial(peer, this.#handler(end));
    this.send(end);
    return end;
  }

  /** Sends a frame of its own kind: end, number, and some more bytes. */
  send(end: End, lengthBytes = 16): void {
    if (!this.isAlive(end)) return;
    const frame = this.#message(end, lengthBytes);
    if (end.closed === undefined) end.sent.push(frame);
    end.connection.send(frame);
  }

  sendDatagram(end: End, lengthBytes = 16): void {
    if (this.isAlive(end)) end.connection.sendDatagram(this.#message(end, lengthBytes));
  }

  close(end: End): void {
    if (this.isAlive(end)) end.connection.close(END);
  }

  isAlive(end: End): boolean {
    return this.isUp(end.node) && this.#incarnations.get(end.node) === end.incarnation;
  }

  #message(end: End, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(Math.max(8, lengthBytes)).fill(this.#sequence & 255);
    const view = new DataView(bytes.buffer);
    const index = this.ends.indexOf(end);
    view.setUint16(0, index);
    view.setUint16(2, ~index); // a damaged greeting must match no end rather than a wrong one
    view.setInt32(4, this.#sequence++);
    return bytes;
  }

  #end(node: string, peer: string): End {
    const end: End = {
      node,
      incarnation: this.#incarnations.get(node) as number,
      peer,
      connection: undefined as unknown as NodeConnection,
      sent: [],
      received: [],
      datagrams: [],
      opened: 0,
      late: 0,
      closed: undefined,
      closedUs: -1,
      other: undefined,
    };
    this.ends.push(end);
    return end;
  }

  #handler(end: End): ConnectionHandler {
    const isLate = (): boolean => {
      if (end.closed === undefined && this.isAlive(end)) return false;
      end.late++;
      return true;
    };
    return {
      onOpen: () => {
        if (!isLate()) end.opened++;
      },
      onFrame: (frame) => {
        if (isLate()) return;
        end.received.push(frame);
        if (end.received.length > 1 || end.other !== undefined) return;
        const view = new DataView(frame.buffer, frame.byteOffset);
        const index = view.getUint16(0);
        const other = this.ends[index];
        if ((index ^ view.getUint16(2)) !== 0xffff) return;
        if (other === undefined || other.node !== end.peer) return;
        end.other = other;
        other.other = end;
      },
      onDatagram: (datagram) => {
        if (!isLate()) end.datagrams.push(datagram);
      },
      onClose: (error) => {
        if (isLate()) return;
        end.closed = error;
        end.closedUs = this.loop.nowUs;
      },
    };
  }
}

/** Number of bits in which two byte strings of one length differ; −1 for other lengths. */
export function bitsApart(one: Uint8Array, other: Uint8Array): number {
  if (one.length !== other.length) return -1;
  let bits = 0;
  for (let at = 0; at < one.length; at++) {
    for (let rest = (one[at] as number) ^ (other[at] as number); rest !== 0; rest &= rest - 1) bits++;
  }
  return bits;
}
