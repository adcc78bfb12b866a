/** What a shard hosts ends with its term, and is out of reach while the lease is over. */
import { describe, expect, it } from "vitest";
import { Tenure } from "../../actors/tenure.ts";
import { createActorSystem } from "../../src/actor/actor-system.ts";
import { defineActor, type StopReason } from "../../src/actor/define-actor.ts";
import { ShardloomError } from "../../src/errors.ts";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";
import { createSnapshot, type TopologySnapshot, vshardOfActor, withStates } from "../../src/topology/snapshot.ts";

const SHAPE = { shards: 2, vshards: 8, replicationFactor: 2 } as const;

function world() {
  const stopped: [string, StopReason][] = [];
  const counter = defineActor({
    name: "counter",
    init: ({ key }) => ({ key, count: 0 }),
    handlers: {
      add: (state) => ++state.count,
      hang: (_, __, { signal }) => new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve())),
    },
    onStop: ({ key }, _, reason) => void stopped.push([key, reason]),
  });
  const time = createVirtualTime(0);
  const actors = createActorSystem({
    definitions: [counter],
    ...time,
    random: { u32: () => 1, float: () => 0.5 },
    send: undefined as never,
  });
  let current: TopologySnapshot = createSnapshot(SHAPE);
  let isServing = true;
  const closed: string[] = [];
  const tenure = new Tenure({
    shard: 0,
    topology: { current: () => current },
    gate: {
      assertServing: () => {
        if (!isServing) throw new ShardloomError("ERR_UNAVAILABLE", "over");
      },
    },
    hosted: () => ({
      actors,
      barriers: {
        closeWhere: (isOver, errorOf) => {
          for (const name of ["one", "two", "three", "four"])
            if (isOver(name)) closed.push(`${name}: ${errorOf(name).code}`);
        },
      },
    }),
  });
  const answers: unknown[] = [];
  const sink = {
    value: (_: number, __: number, value: unknown) => void answers.push(value),
    error: (_: number, __: number, { code }: ShardloomError) => void answers.push(code),
  };
  let token = 0;
  const ask = (key: string, handler = "add"): void => {
    const message = { actorName: "counter", key, handler, bytes: undefined, byteOffset: 0, byteLength: 0, ask: true };
    actors.deliver({ ...message, deadlineAtMs: 0, senderId: 1, requestToken: ++token }, sink);
  };
  const change = (next: TopologySnapshot): void => {
    current = next;
  };
  const keyOn = (shard: number): string => {
    for (let at = 0; ; at++) if (current.owners[vshardOfActor(current, "counter", `k${at}`)] === shard) return `k${at}`;
  };
  const serve = (value: boolean): void => {
    isServing = value;
  };
  return { tenure, actors, ask, answers, stopped, closed, change, keyOn, serve, now: () => current };
}

/** The map with one vshard's copies the other way round. */
function swapped(snapshot: TopologySnapshot, vshard: number, term: number): TopologySnapshot {
  const copies = snapshot.copies.slice();
  copies.subarray(2 * vshard, 2 * vshard + 2).reverse();
  const terms = snapshot.terms.slice();
  terms[vshard] = term;
  const epochs = { topologyEpoch: snapshot.topologyEpoch + 1, mapVersion: snapshot.mapVersion + 1 };
  return createSnapshot({ ...SHAPE, ...epochs, copies, terms });
}

describe("Tenure", () => {
  it("refuses while the lease is over, and keeps what is hosted for when it is good again", () => {
    const { tenure, ask, answers, keyOn, serve, stopped } = world();
    const key = keyOn(0);
    tenure.assertHosting();
    ask(key);
    serve(false);
    expect(() => tenure.assertHosting()).toThrow(expect.objectContaining({ code: "ERR_UNAVAILABLE" }));
    serve(true);
    tenure.assertHosting();
    ask(key);
    expect(answers).toEqual([1, 2]);
    expect(stopped).toEqual([]);
  });

  it("ends what it hosted of a vshard that has another primary, or has had one, and nothing else", () => {
    const { tenure, actors, ask, answers, change, keyOn, stopped, closed, now } = world();
    const key = keyOn(0);
    const vshard = vshardOfActor(now(), "counter", key);
    const others = Array.from({ length: 200 }, (_, at) => `k${at}`).filter((other) => {
      const place = vshardOfActor(now(), "counter", other);
      return place !== vshard && now().owners[place] === 0;
    });
    const [stays] = others as [string];
    for (const each of [key, stays]) ask(each);
    change(withStates(now(), Uint8Array.of(1, 2)));
    tenure.look();
    expect(stopped).toEqual([]);
    // It went and came back before anybody looked.
    change(swapped(swapped(now(), vshard, 5), vshard, 6));
    tenure.look();
    expect(stopped).toEqual([[key, "moved"]]);
    for (const each of [key, stays]) ask(each);
    expect(answers).toEqual([1, 1, 1, 2]);
    change(swapped(now(), vshard, 7));
    tenure.look();
    expect(stopped).toEqual([
      [key, "moved"],
      [key, "moved"],
    ]);
    expect(actors.activeCount()).toBe(1);
    expect(closed.every((each) => each.endsWith("ERR_STALE_EPOCH"))).toBe(true);
  });

  it("lets a message that runs end, and refuses those that wait behind it", async () => {
    const { tenure, actors, ask, answers, change, keyOn, stopped, now } = world();
    const key = keyOn(0);
    ask(key, "hang");
    ask(key);
    change(swapped(now(), vshardOfActor(now(), "counter", key), 5));
    tenure.look();
    expect([answers, stopped]).toEqual([[], []]);
    actors.cancel(1, 1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(answers).toContain("ERR_UNAVAILABLE");
    expect(stopped).toEqual([[key, "moved"]]);
  });
});
