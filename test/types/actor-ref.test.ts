/** References are typed from the definition alone. Checked by tsc; the runtime part is that nothing is sent on creation. */

import { describe, expect, expectTypeOf, it } from "vitest";
import { type ActorRef, type ActorSend, type AskOptions, createActorRef } from "../../src/actor/actor-ref.ts";
import type { ActorContext } from "../../src/actor/context.ts";
import { defineActor } from "../../src/actor/define-actor.ts";

const cart = defineActor({
  name: "cart",
  init: async (context) => ({ key: context.key, items: new Map<string, number>() }),
  handlers: {
    add(state, line: { sku: string; quantity: number }) {
      state.items.set(line.sku, line.quantity);
      return state.items.size;
    },
    async total(state) {
      return state.items.size;
    },
    find: (state, sku: string | undefined) => (sku === undefined ? undefined : state.items.get(sku)),
    clear(state, _message: undefined, context) {
      expectTypeOf(context).toEqualTypeOf<ActorContext>();
      state.items.clear();
    },
    anything: (_state, message: unknown) => message,
  },
  onStart: (state) => expectTypeOf(state.items).toEqualTypeOf<Map<string, number>>() as unknown as void,
});

const sent: unknown[][] = [];
const send: ActorSend = {
  ask: (...parameters) => Promise.resolve(sent.push(["ask", ...parameters])),
  tell: (...parameters) => {
    sent.push(["tell", ...parameters]);
    return parameters[2] === "clear" ? Promise.reject(new Error("refused")) : Promise.resolve();
  },
};

describe("a reference", () => {
  it("has the messages of its definition, typed", () => {
    const ref = createActorRef(cart, "alice", send);
    expectTypeOf(ref).toEqualTypeOf<ActorRef<typeof cart>>();
    expectTypeOf(ref.add).parameters.toEqualTypeOf<
      [message: { sku: string; quantity: number }, options?: AskOptions]
    >();
    expectTypeOf(ref.add).returns.toEqualTypeOf<Promise<number>>();
    expectTypeOf(ref.total).parameters.toEqualTypeOf<[message?: undefined, options?: AskOptions]>();
    expectTypeOf(ref.total).returns.toEqualTypeOf<Promise<number>>();
    expectTypeOf(ref.find).parameters.toEqualTypeOf<[message?: string | undefined, options?: AskOptions]>();
    expectTypeOf(ref.find).returns.toEqualTypeOf<Promise<number | undefined>>();
    expectTypeOf(ref.clear).returns.toEqualTypeOf<Promise<void>>();
    expectTypeOf(ref.tell.add).parameters.toEqualTypeOf<[message: { sku: string; quantity: number }]>();
    expectTypeOf(ref.tell.add).returns.toEqualTypeOf<Promise<void>>();
    expectTypeOf(ref).not.toHaveProperty("remove");
    expect(sent).toEqual([]);
  });

  it("sends name, key, message and options", async () => {
    const ref = createActorRef(cart, "alice", send);
    await ref.add({ sku: "tea", quantity: 2 }, { timeoutMs: 5 });
    await ref.tell.find("tea");
    expect(sent.splice(0)).toEqual([
      ["ask", "cart", "alice", "add", { sku: "tea", quantity: 2 }, { timeoutMs: 5 }],
      ["tell", "cart", "alice", "find", "tea"],
    ]);
    expect([ref.actorName, ref.key]).toEqual(["cart", "alice"]);
    expect(ref.tell).toBe(ref.tell);
  });

  it("can be awaited and printed without sending anything", async () => {
    const ref = createActorRef(cart, "alice", send);
    expect(await Promise.resolve(ref)).toBe(ref);
    expect(JSON.stringify(ref)).toBe('{"key":"alice"}');
    expect(sent).toEqual([]);
  });

  it("lets a refused tell be ignored, or awaited", async () => {
    const ref = createActorRef(cart, "alice", send);
    void ref.tell.clear();
    await new Promise((resolve) => setImmediate(resolve)); // an unhandled rejection would fail the run
    await expect(ref.tell.clear()).rejects.toThrow("refused");
  });

  it.each(["", "k".repeat(1025), 7 as unknown as string])("refuses the key %j", (key) => {
    expect(() => createActorRef(cart, key, send)).toThrow(/key must be/);
  });
});
