/** Actors that the cluster tests host in real workers. */
import { pbkdf2Sync } from "node:crypto";
import { writeFileSync } from "node:fs";
import { ShardloomError } from "../../src/errors.ts";
import { defineActor } from "../../src/index.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { waitAt } from "./gate.ts";

/** Keeps a count and the order in which it was told things. */
export const counter = defineActor({
  name: "counter",
  init: () => ({ count: 0, seen: [] as number[] }),
  handlers: {
    add(state, amount: number) {
      state.count += amount;
      return state.count;
    },
    remember(state, value: number) {
      state.seen.push(value);
    },
    seen(state) {
      return state.seen;
    },
    read(state) {
      return state.count;
    },
  },
});

/** A word that nobody wakes. */
const STILL = new Int32Array(new SharedArrayBuffer(4));
/** Calls of `noteAbort` that have begun on this thread. */
let noting = 0;

/** Does what breaks things. */
export const saboteur = defineActor({
  name: "saboteur",
  init: () => ({ calls: 0, aborts: 0 }),
  handlers: {
    calls(state) {
      state.calls++;
      return state.calls;
    },
    block(_, milliseconds: number) {
      const until = performance.now() + milliseconds;
      while (performance.now() < until);
      return "done";
    },
    /** Answers, and then holds the worker's thread while it drains no ring. */
    blockSoon(_, milliseconds: number) {
      setTimeout(() => {
        const until = performance.now() + milliseconds;
        while (performance.now() < until);
      }, 1);
    },
    /** Holds the worker's thread for so long without using a core. */
    hold(_, microseconds: number) {
      Atomics.wait(STILL, 0, 0, microseconds / 1000);
      return "done";
    },
    /** Holds the worker's thread until a gate is open, for so long at most. */
    holdWhile(_, { path, milliseconds, isSpinning }: { path: string; milliseconds: number; isSpinning: boolean }) {
      waitAt(path, milliseconds, isSpinning);
      return "done";
    },
    /** One real native call that nothing can interrupt; about 0.4 s for a million rounds. */
    grind(_, rounds: number, context) {
      return context.native(() => pbkdf2Sync("secret", "salt", rounds, 32, "sha512").length);
    },
    /** Goes native for a moment again and again, and never ends a turn meanwhile. */
    flicker(_, milliseconds: number, context) {
      const until = performance.now() + milliseconds;
      while (performance.now() < until) context.native(() => pbkdf2Sync("secret", "salt", 2_000, 32, "sha512"));
      return "done";
    },
    nestNative(_, milliseconds: number, context) {
      return context.native(() => {
        context.native(() => pbkdf2Sync("secret", "salt", 10, 32, "sha512"));
        const until = performance.now() + milliseconds;
        while (performance.now() < until) pbkdf2Sync("secret", "salt", 2_000, 32, "sha512");
        return "done";
      });
    },
    clock() {
      return systemClock.nowMs();
    },
    noteAbort(state, milliseconds: number, context) {
      noting++;
      return new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        context.signal.addEventListener("abort", () => {
          clearTimeout(timer);
          state.aborts++;
          resolve();
        });
      });
    },
    /** How many have begun on this thread, asked of an actor that does not. */
    noting() {
      return noting;
    },
    aborts(state) {
      return state.aborts;
    },
    sleepUntilAborted(_, milliseconds: number, context) {
      return new Promise<string>((resolve, reject) => {
        const timer = setTimeout(() => resolve("slept"), milliseconds);
        context.signal.addEventListener("abort", () => {
          clearTimeout(timer);
          reject(context.signal.reason as Error);
        });
      });
    },
    sleep(_, milliseconds: number) {
      return new Promise<string>((resolve) => setTimeout(() => resolve("slept"), milliseconds));
    },
    exit(_, code: number) {
      process.exit(code);
    },
    /** As holdWhile, and then the thread exits: what came meanwhile is never looked at. */
    exitAfter(_, { path, milliseconds }: { path: string; milliseconds: number }) {
      waitAt(path, milliseconds);
      process.exit(1);
    },
    throwOutside() {
      setTimeout(() => {
        throw new Error("thrown outside any handler");
      }, 0);
      return new Promise<never>(() => undefined);
    },
    eatMemory() {
      const hoard: unknown[] = [];
      for (;;) hoard.push(new Array(10_000).fill(Math.random()));
    },
    fail(_, message: string) {
      throw new RangeError(message);
    },
    refuse() {
      throw new ShardloomError("ERR_INVALID_ARGUMENT", "refused on purpose", { details: { why: "test" } });
    },
  },
});

/** Asks and tells others, over the mesh. */
export const relay = defineActor({
  name: "relay",
  init: () => ({}),
  handlers: {
    async addTo(_, message: { key: string; amount: number }, context) {
      return context.actor(counter, message.key).add(message.amount);
    },
    /** Asks for a tenant. */
    async addFor(_, tenant: string, context) {
      return context.actor(counter, "anybody's").add(1, { tenant });
    },
    /** Asks one after the other for a while, and says how often. */
    async chain(_, message: { key: string; milliseconds: number }, context) {
      const target = context.actor(counter, message.key);
      const until = performance.now() + message.milliseconds;
      let asks = 0;
      for (; performance.now() < until; asks++) await target.add(1);
      return asks;
    },
    /** Tells a sleeper more than its mailbox holds, and counts refusals. */
    async flood(_, message: { key: string; count: number }, context) {
      const target = context.actor(saboteur, message.key);
      const tells = Array.from({ length: message.count }, () => target.tell.sleep(20));
      const settled = await Promise.allSettled(tells);
      return settled.filter((tell) => tell.status === "rejected").length;
    },
    async burst(_, message: { key: string; values: number[] }, context) {
      const target = context.actor(counter, message.key);
      await Promise.all(message.values.map((value) => target.tell.remember(value)));
      return target.seen();
    },
  },
});

/** Saves itself to another actor when it stops, and notes whether that worked. */
export const saver = defineActor({
  name: "saver",
  init: () => ({ key: "", path: "" }),
  handlers: {
    remember(state, message: { key: string; path: string }) {
      state.key = message.key;
      state.path = message.path;
    },
  },
  async onStop(state, context) {
    if (state.key === "") return;
    const outcome = await context
      .actor(counter, state.key)
      .add(1)
      .catch((error: unknown) => String(error));
    writeFileSync(state.path, String(outcome));
  },
});
