/**
 * Judges the answers of the notebook actors.
 *
 * Invariant: numbers are unique over a run, so an answer's list names the messages that its activation has handled, in their order.
 */
import { pairCalls, violationOf } from "../history.ts";
import type { Call, HistoryEntry, Violation } from "../history-types.ts";

/** An answer of an activation: everything that it had been given. */
interface Answer {
  readonly call: Call;
  readonly key: string;
  readonly activation: number;
  readonly list: readonly number[];
}

type Asked = readonly [key: string, number: number];
type Answered = readonly [key: string, answer: { activation: number; list: readonly number[] }];

/** Every rule of actors without storage. */
export function judgeActors(history: readonly HistoryEntry[]): Violation[] {
  const calls = pairCalls(history);
  const sent = new Map<number, Call>();
  for (const call of calls) if (call.invoke.f !== "read") sent.set((call.invoke.value as Asked)[1], call);
  const byActivation = new Map<string, Answer[]>();
  for (const answer of answersOf(calls)) {
    const place = `${answer.key} ${answer.activation}`;
    const list = byActivation.get(place) ?? [];
    list.push(answer);
    byActivation.set(place, list);
  }
  const activations = [...byActivation.values()];
  return [
    ...activations.flatMap((answers) => judgeActivation(answers, sent)),
    ...twice(activations),
    ...returned(activations),
  ];
}

function answersOf(calls: readonly Call[]): Answer[] {
  return calls.flatMap((call) => {
    if (call.outcome !== "ok" || call.invoke.f === "tell") return [];
    const [key, { activation, list }] = (call.completion as HistoryEntry).value as Answered;
    return [{ call, key, activation, list }];
  });
}

/** The lists of one activation are beginnings of each other, have what was acknowledged, and keep each sender's order. */
function judgeActivation(answers: readonly Answer[], sent: ReadonlyMap<number, Call>): Violation[] {
  const violations: Violation[] = [];
  const longest = answers.reduce((best, answer) => (answer.list.length > best.list.length ? answer : best));
  for (const answer of answers) {
    const { call, key, list } = answer;
    if (list.some((number, at) => number !== longest.list[at]))
      violations.push(
        violationOf("lists only grow", `two answers of one activation of ${key} contradict each other`, [
          call,
          longest.call,
        ]),
      );
    const [, number] = call.invoke.value as Asked;
    if (call.invoke.f === "append" && !list.includes(number))
      violations.push(
        violationOf("no acknowledged message lost", `${key} acknowledged ${number} and does not have it`, [call]),
      );
  }
  const inOrder = [...answers].sort((a, b) => a.call.invoke.index - b.call.invoke.index);
  for (const [at, answer] of inOrder.entries()) {
    const earlier = inOrder
      .slice(0, at)
      .find((other) => isBefore(other.call, answer.call) && other.list.length > answer.list.length);
    if (earlier !== undefined)
      violations.push(
        violationOf("lists only grow", `${answer.key} answered with less than before`, [earlier.call, answer.call]),
      );
  }
  const lastOf = new Map<number, number>();
  for (const number of longest.list) {
    const call = sent.get(number);
    if (call === undefined || (call.invoke.value as Asked)[0] !== longest.key) {
      violations.push(
        violationOf("nothing invented", `${longest.key} has ${number}, which nobody sent to it`, [longest.call]),
      );
      continue;
    }
    const { process } = call.invoke;
    if ((lastOf.get(process) ?? -1) > number)
      violations.push(
        violationOf(
          "messages of a sender in order",
          `${longest.key} has ${number} of process ${process} after ${lastOf.get(process)}`,
          [call, longest.call],
        ),
      );
    lastOf.set(process, number);
  }
  return violations;
}

/** A message is in one activation at most, and there once. */
function twice(activations: readonly (readonly Answer[])[]): Violation[] {
  const seen = new Map<number, Answer>();
  const violations: Violation[] = [];
  for (const answers of activations) {
    const longest = answers.reduce((best, answer) => (answer.list.length > best.list.length ? answer : best));
    for (const number of longest.list) {
      const before = seen.get(number);
      if (before !== undefined)
        violations.push(
          violationOf("nothing delivered twice", `${number} was delivered to ${longest.key} twice`, [
            before.call,
            longest.call,
          ]),
        );
      seen.set(number, longest);
    }
  }
  return violations;
}

/** An activation that has answered after another one never hears of the actor again. */
function returned(activations: readonly (readonly Answer[])[]): Violation[] {
  const byKey = new Map<string, (readonly Answer[])[]>();
  for (const answers of activations) {
    const key = (answers[0] as Answer).key;
    byKey.set(key, [...(byKey.get(key) ?? []), answers]);
  }
  return [...byKey.values()].flatMap((lives) =>
    lives.flatMap((life) =>
      lives.flatMap((other) => {
        if (life === other) return [];
        // life before other before life again
        for (const first of life)
          for (const middle of other)
            if (isBefore(first.call, middle.call)) {
              const again = life.find((answer) => isBefore(middle.call, answer.call));
              if (again === undefined) continue;
              const message = `an activation of ${first.key} answered after another one had taken its place`;
              return [violationOf("one activation of an actor", message, [first.call, middle.call, again.call])];
            }
        return [];
      }),
    ),
  );
}

/** Whether one operation had ended when the other began. */
function isBefore(one: Call, other: Call): boolean {
  return one.completion !== undefined && one.completion.index < other.invoke.index;
}
