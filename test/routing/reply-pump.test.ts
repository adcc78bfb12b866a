import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import { OP, Peer } from "./peer.ts";

const CHILD = fileURLToPath(new URL("./reply-pump-child.js", import.meta.url));

describe("ReplyPump", () => {
  it("keeps the process alive while an ask is open, and no longer", async () => {
    const started = performance.now();
    const { stdout } = await promisify(execFile)(process.execPath, [CHILD], { timeout: 20_000 });
    expect(Number(/^answered after (\d+)$/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(290);
    // The ask's deadline is a minute away; its timer must not hold the process.
    expect(performance.now() - started).toBeLessThan(15_000);
  });

  describe("with a peer", () => {
    let peer: Peer;
    afterEach(() => peer.close());

    it("does not let a chain of asks starve timers and immediates", async () => {
      peer = new Peer({}, 1_000);
      peer.open();
      await peer.ask(OP.ECHO, 0); // the thread has started
      let timers = 0;
      let immediates = 0;
      const interval = setInterval(() => timers++, 5);
      const turn = (): void => {
        immediates++;
        again = setImmediate(turn);
      };
      let again = setImmediate(turn);
      const until = performance.now() + 20_000;
      let asks = 1;
      const isStarving = (): boolean => timers <= 5 || immediates <= 20;
      while (asks <= 10 || (isStarving() && performance.now() < until))
        expect((await peer.ask(OP.ECHO, asks++)).inOrder).toBe(true);
      clearInterval(interval);
      clearImmediate(again);
      expect(timers).toBeGreaterThan(5);
      expect(immediates).toBeGreaterThan(20);
    });

    it("settles what is in flight while callers go on to ask, in any number of microtasks", async () => {
      peer = new Peer();
      peer.open();
      let next = 0;
      const lane = async (hops: number): Promise<void> => {
        while (next < 5_000) {
          const value = next++;
          expect((await peer.ask(OP.ECHO, value)).value).toBe(value);
          for (let hop = 0; hop < hops; hop++) await Promise.resolve();
        }
      };
      await Promise.all(Array.from({ length: 64 }, (_, hops) => lane(hops % 9)));
      expect(peer.stats()).toMatchObject({ replied: 5_000, failed: 0 });
    });

    it("fails at the deadline while nobody else has anything to do", async () => {
      peer = new Peer();
      peer.open();
      await expect(peer.ask(OP.NEVER, 1, 50)).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      await expect(peer.ask(OP.NEVER, 2, 10)).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      expect(await peer.ask(OP.ECHO, 3)).toMatchObject({ value: 3 });
    });
  });
});
