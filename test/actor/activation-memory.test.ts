/** Idle actors are small, resting ones are gone, and a message that runs in line leaves no garbage. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

interface Measured {
  readonly active: number;
  readonly bytesPerActivation: number;
  readonly growthBytes: number;
  readonly nsPerInlineDeliver: number;
  readonly allocatedBytesPerMessage: number;
}

it("holds a million idle actors in less than 1 KB each and lets go of them", { timeout: 120_000 }, () => {
  const child = fileURLToPath(new URL("./activation-memory.child.js", import.meta.url));
  const output = execFileSync(process.execPath, ["--expose-gc", child, "1000000"], { encoding: "utf8" });
  const measured = JSON.parse(output) as Measured;
  expect(measured.active).toBe(1_000_000);
  expect(measured.bytesPerActivation).toBeGreaterThan(50); // else nothing was measured
  expect(measured.bytesPerActivation).toBeLessThan(1024);
  expect(measured.growthBytes).toBeLessThan(2_000_000); // 2 bytes an actor: noise of the heap, no leak
  expect(measured.allocatedBytesPerMessage).toBeLessThan(1);
});
