/**
 * A proxy between two TCP ports that a test makes misbehave: it holds back one direction or both, and cuts what it carries.
 *
 * Invariant: bytes that are held back are kept, in order, until they are let through or cut; nothing is changed.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** One direction of all connections. */
export type Direction = "there" | "back";

export class LinkProxy {
  readonly #server: Server;
  readonly #pairs: Set<{ readonly near: Socket; readonly far: Socket }> = new Set();
  readonly #held: Set<Direction> = new Set();
  /** Sides of connections from which nothing is taken. */
  readonly #stuck: Set<Socket> = new Set();
  readonly #port: () => number;

  /** @param port Where to, asked for every connection. */
  private constructor(port: () => number) {
    this.#port = port;
    this.#server = createServer((near) => this.#carry(near));
  }

  static async create(port: () => number): Promise<LinkProxy> {
    const proxy = new LinkProxy(port);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.#pairs.size;
  }

  /** Lets nothing through in one direction: the other side hears nothing any more, and is not told. */
  hold(direction: Direction): void {
    this.#held.add(direction);
    for (const { near, far } of this.#pairs) (direction === "there" ? near : far).pause();
  }

  /** Lets nothing through on one connection, counted from 0 in the order in which they were made. */
  holdOne(at: number): void {
    const pair = [...this.#pairs][at];
    for (const socket of pair === undefined ? [] : [pair.near, pair.far]) this.#stuck.add(socket.pause());
  }

  /** Lets everything through that was held back. */
  release(): void {
    this.#held.clear();
    this.#stuck.clear();
    for (const { near, far } of this.#pairs) {
      near.resume();
      far.resume();
    }
  }

  /** Ends all connections at once, on both sides. */
  cut(): void {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  /** Ends the connection that was made last. */
  cutOne(): void {
    const last = [...this.#pairs].at(-1);
    last?.near.destroy();
    last?.far.destroy();
  }

  close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.cut();
    return closed;
  }

  #carry(near: Socket): void {
    const far = connect(this.#port(), "127.0.0.1");
    const pair = { near, far };
    this.#pairs.add(pair);
    for (const [from, to, direction] of [
      [near, far, "there"],
      [far, near, "back"],
    ] as const) {
      from.setNoDelay(true);
      from.on("data", (chunk) => {
        if (!to.write(chunk)) from.pause();
      });
      to.on("drain", () => {
        if (!this.#held.has(direction) && !this.#stuck.has(from)) from.resume();
      });
      from.on("end", () => to.end());
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
      if (this.#held.has(direction)) from.pause();
    }
  }
}
