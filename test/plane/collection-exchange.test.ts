/** What two linked nodes tell each other of collections: all when they connect, each change, again where it failed; and who waits for whom. */
import { afterEach, describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { CollectionExchange, type CollectionHolder, type CollectionNews } from "../../src/plane/collection-exchange.ts";
import { type LinkedNode, Pair } from "./linked-nodes.ts";

let pair: Pair | undefined;
afterEach(() => pair?.close());

/** A node's collections, which a test lets it open, or not. */
class Holder implements CollectionHolder {
  readonly own: CollectionNews[] = [];
  readonly learnt: CollectionNews[] = [];
  /** What the next news fail with. */
  readonly failures: ("ERR_UNAVAILABLE" | "ERR_COLLECTION_MISMATCH")[] = [];
  stuck = false;
  readonly exchange: CollectionExchange;

  constructor(of: Pair, { links }: LinkedNode) {
    this.exchange = new CollectionExchange(links, of.time.scheduler, this);
  }

  news(): readonly CollectionNews[] {
    return this.own;
  }

  learn(news: CollectionNews): Promise<void> {
    this.learnt.push(news);
    const failure = this.failures.shift();
    if (failure !== undefined) return Promise.reject(new ShardloomError(failure, "Cannot open as it is told to fail"));
    if (this.stuck) return new Promise(() => undefined);
    if (this.own.some(({ name, generation }) => name === news.name && generation === news.generation))
      return Promise.resolve();
    this.own.push(news);
    this.exchange.tell(news);
    return Promise.resolve();
  }
}

function linked(): { of: Pair; a: Holder; b: Holder } {
  const of = new Pair();
  pair = of;
  return { of, a: new Holder(of, of.a), b: new Holder(of, of.b) };
}

const opened = (name: string, generation = 0): CollectionNews => ({
  engine: "toy",
  name,
  generation,
  options: { name },
});
const isUp = ({ links }: LinkedNode): boolean => links.stats()[0]?.state === "up";

describe("nodes that connect", () => {
  it("tell all they have, in as many frames as it takes", async () => {
    const { of, a, b } = linked();
    a.own.push(...Array.from({ length: 600 }, (_, at) => opened(`c${at}`)));
    of.start();
    await of.connected();
    expect(b.learnt).toEqual(a.own);
    await of.until("who told hears that they are here", () => a.learnt.length === 600);
  });

  it("are asked for nothing before what they were told of is here, or takes too long", async () => {
    const { of, a, b } = linked();
    a.own.push(opened("docs"));
    b.stuck = true;
    of.start();
    const asked = of.a.ask(1, Uint8Array.of(1));
    await of.until("they are connected", () => isUp(of.a) && b.learnt.length === 1);
    await of.time.advance(900);
    expect([of.a.links.incarnationOf(1), asked.outcome]).toEqual([0, undefined]);
    await of.until("the answer", () => asked.outcome !== undefined, 500);
    expect(asked.outcome).toEqual(Uint8Array.of(1));
  });

  it("are connected anew after news that are damaged", async () => {
    const { of, a, b } = linked();
    of.start();
    await of.connected();
    let downs = 0;
    of.b.links.onNode(({ state }) => {
      if (state === "down") downs++;
    });
    for (const text of ["nonsense", '[{"engine":"toy"}]', "{}"]) {
      const before = downs;
      of.a.links.tellCollections(new TextEncoder().encode(text));
      await of.until("it is cut", () => downs > before);
      await of.until("it is there again", () => isUp(of.a) && isUp(of.b));
    }
    a.exchange.tell(opened("docs"));
    await of.until("what makes sense is heard", () => b.learnt.length === 1);
  });
});

describe("who has opened", () => {
  it("waits until all that are connected have, and for nobody else", async () => {
    const { of, a, b } = linked();
    const news = opened("docs");
    await a.exchange.spread(news); // nobody is there
    of.start();
    await of.connected();
    b.stuck = true;
    const settled: string[] = [];
    const spread = async (what: string): Promise<void> => a.exchange.spread(news).then(() => void settled.push(what));
    void spread("stuck");
    a.exchange.tell(news);
    await of.time.advance(900);
    expect(settled).toEqual([]);
    await of.until("it does not wait for ever", () => settled.length === 1, 200);
    b.stuck = false;
    void spread("open");
    b.exchange.tell(news);
    await of.until("it is there", () => settled.length === 2, 100);
    // Newer news are as good; older ones are not.
    await a.exchange.spread({ ...news, options: undefined });
    const next = a.exchange.spread(opened("docs", 1)).then(() => settled.push("newer"));
    await of.time.advance(100);
    expect(settled).not.toContain("newer");
    of.network.cut("a", "b");
    await of.until("nobody is connected", () => settled.includes("newer"), 100);
    await next;
  });

  it("knows what all had before it says what there is not", async () => {
    const { of, a } = linked();
    let isSettled = false;
    void a.exchange.settled().then(() => {
      isSettled = true;
    });
    of.a.links.start([]);
    await of.time.advance(1_900);
    expect(isSettled).toBe(false);
    await of.until("there was time enough", () => isSettled, 200);
  });

  it("does not wait for anybody once it is closed", async () => {
    const { of, a } = linked();
    const settled = a.exchange.settled();
    of.a.links.start([]);
    of.a.links.close();
    await settled;
  });
});

describe("what cannot be opened", () => {
  it("is tried again, unless that is no use", async () => {
    const { of, a, b } = linked();
    of.start();
    await of.connected();
    b.failures.push("ERR_UNAVAILABLE", "ERR_UNAVAILABLE");
    a.exchange.tell(opened("docs"));
    await of.until("it is opened", () => b.own.length === 1, 2_500);
    expect(b.learnt.filter(({ name }) => name === "docs")).toHaveLength(3);
    b.failures.push("ERR_COLLECTION_MISMATCH");
    a.exchange.tell(opened("notes"));
    await of.time.advance(5_000);
    expect(b.learnt.filter(({ name }) => name === "notes")).toHaveLength(1);
  });
});
