/** Which tokens were used, on the real disk and on a simulated one that loses power: each is granted once, and none is forgotten too early. */
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { SimDisk } from "../../src/sim/disk.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import { MAX_USED_TOKENS, openUsedTokens, USED_TOKENS, type UsedTokens } from "../../src/transport/used-tokens.ts";
import { SteppedLoop } from "../sim/stepped-loop.ts";
import { refusalOf } from "../support/refusals.ts";

const WALL_MS = Date.UTC(2030, 0, 1);
const WEEK_MS = 7 * 86_400_000;

function token(at: number, expiresMs = WALL_MS): { nonce: string; expiresMs: number } {
  return { nonce: at.toString(16).padStart(32, "0"), expiresMs };
}

describe("used tokens", () => {
  let root = "";
  let disk: Disk;
  let used: UsedTokens;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "shardloom-tokens-"));
    disk = await createSystemDisk(root);
    used = await openUsedTokens(disk);
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  test("are granted once, also after a restart and by another process", async () => {
    expect(await used.remember(token(1), WALL_MS)).toBe(true);
    expect(await used.remember(token(1), WALL_MS)).toBe(false);
    expect(await used.remember(token(2), WALL_MS)).toBe(true);
    const other = await openUsedTokens(await createSystemDisk(root));
    expect(await other.remember(token(1), WALL_MS)).toBe(false);
    expect(await other.remember(token(3), WALL_MS)).toBe(true);
    expect(await used.remember(token(3), WALL_MS)).toBe(false);
  });

  test("are granted to one of many at once", async () => {
    const tables = [used, await openUsedTokens(await createSystemDisk(root))];
    const granted = await Promise.all(
      Array.from({ length: 40 }, (_, at) => (tables[at % 2] as UsedTokens).remember(token(7), WALL_MS)),
    );
    expect(granted.filter(Boolean)).toEqual([true]);
  });

  test("are forgotten a week after their end, and what is not a token's is left alone", async () => {
    await writeFile(join(root, USED_TOKENS, "notes.txt"), "mine");
    await used.remember(token(1, WALL_MS - WEEK_MS), WALL_MS - WEEK_MS);
    await used.remember(token(2, WALL_MS), WALL_MS);
    expect(await used.remember(token(1, WALL_MS - WEEK_MS), WALL_MS)).toBe(false);
    expect(await used.remember(token(3), WALL_MS + 1)).toBe(true);
    const names = await readdir(join(root, USED_TOKENS));
    expect(names.sort((a, b) => a.localeCompare(b))).toEqual([
      `${WALL_MS}-${token(2).nonce}`,
      `${WALL_MS}-${token(3).nonce}`,
      "notes.txt",
    ]);
  });

  test("are refused when too many are remembered, until some are forgotten", async () => {
    for (let at = 0; at < MAX_USED_TOKENS; at++)
      await writeFile(join(root, USED_TOKENS, `${WALL_MS + at}-${token(at).nonce}`), "");
    const next = token(MAX_USED_TOKENS, WALL_MS + WEEK_MS);
    expect(await refusalOf(() => used.remember(next, WALL_MS))).toBe("ERR_OVERLOADED");
    expect(await used.remember(token(5, WALL_MS + 5), WALL_MS)).toBe(false); // known, and still known
    expect(await used.remember(next, WALL_MS + WEEK_MS + 10)).toBe(true);
  });

  test("have names that stay in their directory", async () => {
    for (const nonce of ["", "../x", "A".repeat(32), "0".repeat(31)])
      expect(await refusalOf(() => used.remember({ nonce, expiresMs: WALL_MS }, WALL_MS))).toBe("ERR_INVALID_ARGUMENT");
    for (const expiresMs of [-1, 1.5, Number.NaN, 1e22])
      expect(await refusalOf(() => used.remember({ ...token(1), expiresMs }, WALL_MS))).toBe("ERR_INVALID_ARGUMENT");
  });
});

test("on a disk that loses power no token is granted twice", async () => {
  const seed = Number(process.env["SEED"] ?? 1);
  let granted = 0;
  let refused = 0;
  for (let run = 0; run < 100; run++) {
    const loop = new SteppedLoop(seed + run);
    const chance = createSeededRandom(seed + run);
    const faults = createFaultInjector({ "disk-lost-write": 0.5 }, (name) => loop.stream(name), []);
    const simulated = new SimDisk({ node: "n0", loop, faults });
    const known = new Set<number>();
    for (let life = 0; life < 5; life++) {
      const mine = simulated.mount();
      const serve = async (): Promise<void> => {
        const used = await openUsedTokens(mine);
        for (let at = 0; at < 8; at++) {
          if (!(await used.remember(token(at), WALL_MS))) {
            refused++;
            continue;
          }
          expect(known.has(at), `SEED=${seed + run}`).toBe(false);
          known.add(at);
          granted++;
        }
      };
      let failure: Error | undefined;
      serve().catch((error: unknown) => {
        failure = error as Error;
      });
      const steps = chance.u32() % 40;
      for (let step = 0; step < steps && failure === undefined; step++) if (!(await loop.step())) break;
      if (failure !== undefined) throw failure;
      simulated.crash();
    }
  }
  expect(granted).toBeGreaterThan(100);
  expect(refused).toBeGreaterThan(100);
});
