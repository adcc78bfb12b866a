/** Definitions are checked where they are written. */

import { describe, expect, it } from "vitest";
import { type ActorSpec, defineActor, type Handlers, isActorDefinition } from "../../src/actor/define-actor.ts";

const spec = { name: "cart", init: () => ({}), handlers: { add: () => 1 } };
const define = (change: object): unknown => defineActor({ ...spec, ...change } as ActorSpec<object, Handlers<object>>);

describe("defineActor", () => {
  it("fills in the defaults", () => {
    expect(defineActor(spec).options).toMatchObject({
      mailboxCapacity: 1024,
      idleAfterMs: 60_000,
      overload: "reject",
      restart: { maxRestarts: 10, withinMs: 60_000, backoffMs: 10, maxBackoffMs: 10_000 },
    });
    expect(defineActor(spec).handlerNames).toEqual(["add"]);
  });

  it("cannot be changed afterwards", () => {
    const handlers = { add: () => 1 };
    const definition = defineActor({ ...spec, handlers });
    handlers.add = () => 2;
    expect(definition.spec.handlers.add()).toBe(1);
    expect(Object.isFrozen(definition) && Object.isFrozen(definition.spec) && Object.isFrozen(definition.options)).toBe(
      true,
    );
  });

  it("is recognised, and nothing else is", () => {
    expect(isActorDefinition(defineActor(spec))).toBe(true);
    for (const other of [spec, null, undefined, "cart", {}]) expect(isActorDefinition(other)).toBe(false);
  });

  it.each<[string, object]>([
    ["an empty name", { name: "" }],
    ["a name with a space", { name: "my cart" }],
    ["a name that starts with a digit", { name: "1cart" }],
    ["a name of 65 characters", { name: "a".repeat(65) }],
    ["no name", { name: undefined }],
    ["no init", { init: undefined }],
    ["no handlers", { handlers: {} }],
    ["handlers that are null", { handlers: null }],
    ["a handler that is no function", { handlers: { add: 1 } }],
    ["a handler name with a dash", { handlers: { "add-item": () => 1 } }],
    ...["tell", "ask", "then", "catch", "constructor", "toString", "key", "actorName", "toJSON"].map(
      (name): [string, object] => [`the reserved handler name ${name}`, { handlers: { [name]: () => 1 } }],
    ),
    ["a hook that is no function", { onStop: true }],
    ["a mailbox of 0", { options: { mailboxCapacity: 0 } }],
    ["a mailbox of 1.5", { options: { mailboxCapacity: 1.5 } }],
    ["an idle time of 0", { options: { idleAfterMs: 0 } }],
    ["an idle time of NaN", { options: { idleAfterMs: Number.NaN } }],
    ["another overload policy", { options: { overload: "drop" } }],
    ["a negative budget", { options: { restart: { maxRestarts: -1 } } }],
    ["no back-off", { options: { restart: { backoffMs: 0 } } }],
    ["a back-off above its maximum", { options: { restart: { backoffMs: 20, maxBackoffMs: 10 } } }],
    ["an endless back-off", { options: { restart: { maxBackoffMs: Number.POSITIVE_INFINITY } } }],
    ["a judge that is no function", { options: { restart: { decide: "restart" } } }],
  ])("refuses %s", (_what, change) => {
    expect(() => define(change)).toThrow(
      expect.objectContaining({
        code: "ERR_INVALID_ARGUMENT",
        message: expect.stringMatching(/^Cannot define actor as .* must be .*: current value is /),
      }),
    );
  });
});
