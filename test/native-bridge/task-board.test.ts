/** The board of tasks that others may take over: each task ends once, whoever is slow, gives up or dies. */
import { expect, test } from "vitest";
import { TASK_BOARD_BYTES, TaskBoard, type TaskSlot } from "../../native-bridge/task-board.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";

const seed = Number(process.env["SEED"] ?? 1);

function boards(): { owner: TaskBoard; thief: TaskBoard; other: TaskBoard } {
  const memory = new SharedArrayBuffer(TASK_BOARD_BYTES + 64);
  const [owner, thief, other] = [0, 1, 2].map(() => new TaskBoard(memory, 64)) as [TaskBoard, TaskBoard, TaskBoard];
  return { owner, thief, other };
}

function put(owner: TaskBoard, value: number): TaskSlot {
  const slot = owner.free() as TaskSlot;
  slot.head[0] = value;
  owner.put(slot);
  return slot;
}

test("a task is taken by one, and what it wrote is there when it is done", () => {
  const { owner, thief, other } = boards();
  expect(thief.mayHaveTasks).toBe(false);
  expect(thief.take(5)).toBeUndefined();
  const slot = put(owner, 42);
  expect(thief.mayHaveTasks).toBe(true);
  const taken = thief.take(5) as TaskSlot;
  expect(taken.head[0]).toBe(42);
  expect(other.take(6), "it is taken").toBeUndefined();
  expect([owner.takeBack(slot), owner.isDone(slot)]).toEqual([false, false]);
  taken.out[3] = 1.5;
  expect(other.done(taken, 6), "it is not its thief").toBe(false);
  expect(thief.done(taken, 5)).toBe(true);
  expect([owner.isDone(slot), slot.out[3]]).toEqual([true, 1.5]);
  owner.release(slot);
  expect(owner.mayHaveTasks).toBe(false);
});

test("what nobody takes is taken back, and a board has only so many slots", () => {
  const { owner, thief } = boards();
  const slots: TaskSlot[] = [];
  while (owner.free() !== undefined) slots.push(put(owner, slots.length));
  expect(slots.length).toBeGreaterThan(8);
  expect(slots.every((slot) => owner.takeBack(slot))).toBe(true);
  expect(slots.some((slot) => owner.takeBack(slot))).toBe(false);
  expect(thief.take(1)).toBeUndefined();
});

test("a slot that was given up is not used again before its thief has ended, or died", () => {
  const { owner, thief, other } = boards();
  const [first, second] = [put(owner, 1), put(owner, 2)];
  const taken = [thief.take(1), other.take(2)] as TaskSlot[];
  expect([owner.abandon(first), owner.abandon(second), owner.abandon(second)]).toEqual([true, true, false]);
  const free = (): number[] => {
    const found: number[] = [];
    for (let slot = owner.free(); slot !== undefined; slot = owner.free()) found.push(put(owner, 0).index);
    for (let one = other.take(9); one !== undefined; one = other.take(9)) other.done(one, 9);
    return found;
  };
  const used = [first.index, second.index];
  expect(free().filter((index) => used.includes(index))).toEqual([]);
  expect(thief.done(taken[0] as TaskSlot, 1), "nobody waits for it").toBe(false);
  expect(owner.free()?.index).toBe(taken[0]?.index);
  owner.freeAbandoned(1);
  expect(put(owner, 0).index, "that of thief 1").toBe(taken[0]?.index);
  expect(owner.free()).toBeUndefined();
  owner.freeAbandoned(2);
  expect(owner.free()?.index).toBe(taken[1]?.index);
});

test("in any order of steps each task ends once", () => {
  const { owner, thief, other } = boards();
  const random = createSeededRandom(seed);
  const ended = new Map<number, number>();
  const end = (task: number): Map<number, number> => ended.set(task, (ended.get(task) ?? 0) + 1);
  const posted: { task: number; slot: TaskSlot }[] = [];
  const held: { board: TaskBoard; name: number; slot: TaskSlot; value: number }[] = [];
  let tasks = 0;
  const remove = <T>(list: T[]): T | undefined => list.splice(Math.floor(random.float() * list.length), 1)[0];
  const steps = [
    () => {
      if (owner.free() !== undefined) posted.push({ task: ++tasks, slot: put(owner, tasks) });
    },
    () => {
      const [board, name] = random.float() < 0.5 ? [thief, 1] : ([other, 2] as const);
      const slot = board.take(name);
      if (slot !== undefined) held.push({ board, name, slot, value: slot.head[0] as number });
    },
    () => {
      const one = remove(held);
      if (one === undefined) return;
      one.slot.out[0] = one.value;
      one.board.done(one.slot, one.name);
    },
    () => {
      const one = remove(posted);
      if (one === undefined) return;
      const { task, slot } = one;
      if (owner.takeBack(slot)) end(task);
      else if (owner.isDone(slot)) {
        expect(slot.out[0], `SEED=${seed}`).toBe(task);
        owner.release(slot);
        end(task);
      } else if (random.float() < 0.3 && owner.abandon(slot)) end(task);
      else posted.push(one);
    },
  ];
  for (let step = 0; step < 20_000; step++) steps[Math.floor(random.float() * 4)]?.();
  expect(ended.size).toBeGreaterThan(500);
  expect([...ended.values()].every((times) => times === 1)).toBe(true);
  expect(ended.size + posted.length).toBe(tasks);
});
