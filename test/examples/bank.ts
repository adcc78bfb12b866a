/**
 * Example for src/sim/README.md: a bank of actors, and the workload that a simulated world runs on it.
 *
 * A teller takes money from one account and brings it to another, by two messages. `bank({ teller: "hasty" })` has a defect that no ordinary test
 * shows: what if the second message gets lost? `bank({ teller: "careful" })` has it mended.
 */
import { type Cluster, defineActor } from "../../src/index.ts";
import type { Operation, Workload, WorldView } from "../../src/sim.ts";

const OPENING_BALANCE = 100;
const ASK = { timeoutMs: 300 };

/** An entry in the books: the id makes a repeated message harmless. */
interface Entry {
  readonly id: string;
  readonly amount: number;
}

export const account = defineActor({
  name: "account",
  init: () => ({ balance: OPENING_BALANCE, entries: new Set<string>() }),
  handlers: {
    withdraw(state, { id, amount }: Entry): boolean {
      if (state.entries.has(id)) return true;
      if (state.balance < amount) return false;
      state.entries.add(id);
      state.balance -= amount;
      return true;
    },
    deposit(state, { id, amount }: Entry): void {
      if (state.entries.has(id)) return;
      state.entries.add(id);
      state.balance += amount;
    },
    balance: (state): number => state.balance,
  },
  options: { idleAfterMs: Number.POSITIVE_INFINITY }, // the books are in memory
});

interface Transfer extends Entry {
  readonly from: string;
  readonly to: string;
}

export const teller = defineActor({
  name: "teller",
  init: () => ({}),
  handlers: {
    async transfer(_, { id, amount, from, to }: Transfer, context): Promise<boolean> {
      const isTaken = await context.actor(account, from).withdraw({ id: `${id} out`, amount }, ASK);
      if (isTaken) await context.actor(account, to).deposit({ id: `${id} in`, amount }, ASK); // and if this fails?
      return isTaken;
    },
  },
});

interface BankOptions {
  /** `hasty` leaves a transfer that failed as it is; `careful` repeats it until it is known to be done. */
  readonly teller: "hasty" | "careful";
  readonly accounts?: number;
  readonly processes?: number;
}

/** Clients that move money between accounts. However the network behaves, none may be lost. */
export function bank({ teller: manner, accounts = 4, processes = 3 }: BankOptions): Workload {
  const names = Array.from({ length: accounts }, (_, index) => `account-${index}`);
  const transfer = (cluster: Cluster, order: Transfer): Promise<boolean> =>
    cluster.actor(teller, `for ${order.from}`).transfer(order, { timeoutMs: 1_000 });
  return {
    name: `bank with ${manner} tellers`,
    actors: [new URL(import.meta.url)],
    generate(random, { durationMs }) {
      const operations: Operation[] = [];
      for (let process = 0; process < processes; process++) {
        for (let atMs = 0; atMs < durationMs; ) {
          const afterMs = Math.round(random.float() * 400);
          const from = random.u32() % accounts;
          const to = (from + 1 + (random.u32() % (accounts - 1))) % accounts;
          const id = `${process}/${operations.length}`;
          const value = { id, from: names[from], to: names[to], amount: 1 + (random.u32() % 20) };
          operations.push({ process, f: "transfer", value, afterMs });
          atMs += afterMs;
        }
      }
      return operations;
    },
    invoke: ({ value }, { cluster }) => transfer(cluster, value as Transfer),
    async check({ history, nodes }: WorldView) {
      const { cluster } = nodes[0] as WorldView["nodes"][number];
      const inDoubt = history.filter(({ type }) => type === "info");
      const orders = inDoubt.map(({ process, index }) =>
        history.findLast((entry) => entry.type === "invoke" && entry.process === process && entry.index < index),
      );
      if (manner === "careful")
        for (const order of orders) await untilDone(() => transfer(cluster, order?.value as Transfer));
      const balances = await Promise.all(names.map((name) => cluster.actor(account, name).balance()));
      const held = balances.reduce((sum, balance) => sum + balance, 0);
      if (held === accounts * OPENING_BALANCE) return [];
      const message = `the accounts hold ${held} of ${accounts * OPENING_BALANCE}`;
      return [{ rule: "no money is lost", message, entries: inDoubt }];
    },
  };
}

/** When all is well again a connection that lost packets still waits for its next retransmission, longer than a teller: a repeated transfer is harmless. */
async function untilDone(act: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; attempt < 10; attempt++) {
    const done = await act().then(
      () => true,
      () => false,
    );
    if (done) return;
  }
  await act();
}
