/**
 * R5: closed loop of a caller and its workers under waiting policies, at three arrival gaps in three states of the machine.
 *
 * Caller and workers use the same policy. States: *quiet* (one worker); *busy neighbour* (one more thread that never
 * yields); *oversubscribed* (workers = 2 × cores, asked in turn). Gaps: 0; 50 µs of computing; 5 ms asleep.
 */
import { availableParallelism } from "node:os";
import { waitUntil } from "../../native-bridge/idle-strategy.ts";
import { type BenchMode, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import { RingPair } from "./ring-latency.ts";
import { backOff, CONTROL, ensure, localUs, Partner, type Policy } from "./ring-partner.ts";
import { makeSpin, policyName } from "./ring-policy.ts";

const POLICIES: readonly Policy[] = [
  { kind: "fixed", spinUs: 0 },
  { kind: "fixed", spinUs: 20 },
  { kind: "fixed", spinUs: 200 },
  { kind: "fixed", spinUs: 2000 },
  { kind: "adaptive" },
];
/** Smoke runs prove that every part works; they compare fewer policies. */
const SMOKE_POLICIES: readonly Policy[] = POLICIES.filter(
  (policy) => policy.kind === "adaptive" || policy.spinUs === 0 || policy.spinUs === 200,
);
const GAPS_US = [0, 50, 5000] as const;
const STATES = ["quiet", "busy neighbour", "workers = 2x cores"] as const;

interface Cell {
  readonly policy: Policy;
  readonly spin: ReturnType<typeof makeSpin>;
  readonly pairs: readonly RingPair[];
  readonly partners: readonly Partner[];
}

function pause(gapUs: number, sleeper: Int32Array): void {
  if (gapUs === 0) return;
  if (gapUs >= 1000) {
    Atomics.wait(sleeper, 0, 0, gapUs / 1000);
    return;
  }
  const endUs = localUs() + gapUs;
  while (localUs() < endUs) backOff(50);
}

async function open(policy: Policy, workers: number): Promise<Cell> {
  const pairs: RingPair[] = [];
  const partners: Partner[] = [];
  for (let worker = 0; worker < workers; worker++) {
    const pair = new RingPair();
    pairs.push(pair);
    partners.push(
      new Partner({
        role: "policy-echo",
        memory: pair.memory,
        requests: pair.requestsAt,
        replies: pair.repliesAt,
        policy,
      }),
    );
  }
  await Promise.all(partners.map((partner) => partner.online()));
  return { policy, spin: makeSpin(policy), pairs, partners };
}

/** One run of closed-loop trips in one cell: samples in µs. */
function trips(cell: Cell, gapUs: number, count: number, sleeper: Int32Array): number[] {
  const samples: number[] = [];
  for (let trip = 0; trip < count; trip++) {
    pause(gapUs, sleeper);
    const pair = cell.pairs[trip % cell.pairs.length] as RingPair;
    const startUs = localUs();
    pair.send(trip);
    pair.workerBell.ring();
    const answered = waitUntil(() => !pair.replies.isEmpty(), pair.callerBell, cell.spin, localUs, 5000);
    samples.push(localUs() - startUs);
    ensure(answered && pair.take() && pair.lastReply === trip, `waiting: no answer under ${policyName(cell.policy)}`);
  }
  return samples;
}

/** All cells; returns rows, and the worst ratio of adaptive to the best fixed policy with where it was. */
export async function waitingRows(
  mode: BenchMode,
  log: (line: string) => void,
): Promise<{ readonly rows: BenchRow[]; readonly worst: number; readonly where: string }> {
  const rows: BenchRow[] = [];
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  const policies = mode === "smoke" ? SMOKE_POLICIES : POLICIES;
  const rounds = sized(mode, 1, 3, 9);
  let worst = 0;
  let where = "";
  for (const state of STATES) {
    const neighbour = state === "busy neighbour" ? new Partner({ role: "busy" }) : undefined;
    await neighbour?.online();
    for (const gapUs of GAPS_US) {
      log(`ring: waiting, ${state}, gap ${gapUs} us`);
      const count =
        gapUs === 0 ? sized(mode, 20, 1500, 4000) : gapUs === 50 ? sized(mode, 20, 400, 1000) : sized(mode, 8, 20, 60);
      const samples = policies.map((): number[] => []);
      const cpu = policies.map(() => 0);
      for (let round = 0; round < rounds; round++) {
        for (const [index, policy] of policies.entries()) {
          // Threads of one policy only, so that the others' waiting does not disturb; learning is part of the run.
          const cell = await open(policy, state === "workers = 2x cores" ? 2 * availableParallelism() : 1);
          trips(cell, gapUs, Math.max(8, Math.ceil(count / 5)), sleeper);
          const before = process.cpuUsage();
          const startUs = localUs();
          samples[index]?.push(...trips(cell, gapUs, count, sleeper));
          const used = process.cpuUsage(before);
          cpu[index] = (cpu[index] ?? 0) + (used.user + used.system) / (localUs() - startUs) / rounds;
          for (const partner of cell.partners) {
            ensure(Atomics.load(partner.control, CONTROL.RECORDS) > 0, "waiting: a worker did nothing");
            await partner.close();
          }
        }
      }
      const name = `${state}, gap ${gapUs} us`;
      for (const [index, policy] of policies.entries()) {
        rows.push(
          toRow(name, policyName(policy), "us", samples[index] ?? [], `cpu ${(100 * (cpu[index] ?? 0)).toFixed(0)} %`),
        );
      }
      const medians = samples.map(median);
      const adaptive = medians.pop() ?? Number.NaN;
      const ratio = adaptive / Math.min(...medians);
      if (!(ratio <= worst)) {
        worst = ratio;
        where = name;
      }
    }
    await neighbour?.close();
  }
  return { rows, worst, where };
}
