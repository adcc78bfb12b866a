/** The mailbox and its queue against the plainest model of them. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Mailbox, MailboxEntry } from "../../src/actor/mailbox.ts";
import { RingQueue } from "../../src/actor/ring-queue.ts";

describe("ring queue", () => {
  it("behaves as an array does (property)", () => {
    const action = fc.oneof(
      { weight: 5, arbitrary: fc.constant("push" as const) },
      { weight: 3, arbitrary: fc.constant("shift" as const) },
      { weight: 2, arbitrary: fc.nat(40) },
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 300, size: "max" }), (actions) => {
        const queue = new RingQueue<{ id: number }>();
        const model: { id: number }[] = [];
        let id = 0;
        for (const next of actions) {
          if (next === "push") {
            const element = { id: id++ };
            queue.push(element);
            model.push(element);
          } else if (next === "shift") {
            expect(queue.shift()).toBe(model.shift());
          } else {
            const element = model[next] ?? { id: -1 };
            expect(queue.remove(element)).toBe(model.includes(element));
            if (model.includes(element)) model.splice(next, 1);
          }
          expect(queue.size).toBe(model.length);
        }
        while (model.length > 0) expect(queue.shift()).toBe(model.shift());
        expect(queue.shift()).toBeUndefined();
      }),
    );
  });
});

describe("mailbox", () => {
  it("holds its capacity and no more, also after messages left from the middle", () => {
    const mailbox = new Mailbox(3);
    const entries = Array.from({ length: 5 }, () => new MailboxEntry());
    expect(entries.map((entry) => mailbox.push(entry))).toEqual([true, true, true, false, false]);
    expect(mailbox.remove(entries[1] as MailboxEntry)).toBe(true);
    expect(mailbox.remove(entries[4] as MailboxEntry)).toBe(false);
    expect(mailbox.push(entries[3] as MailboxEntry)).toBe(true);
    expect([mailbox.shift(), mailbox.shift(), mailbox.shift(), mailbox.shift()]).toEqual([
      entries[0],
      entries[2],
      entries[3],
      undefined,
    ]);
  });

  it("keeps the host's wish apart, the strongest one", () => {
    const mailbox = new Mailbox(1);
    mailbox.push(new MailboxEntry());
    mailbox.pushSystem("passivate");
    mailbox.pushSystem("stop");
    mailbox.pushSystem("passivate");
    expect([mailbox.size, mailbox.isEmpty]).toEqual([1, false]);
    expect([mailbox.shiftSystem(), mailbox.shiftSystem()]).toEqual(["stop", undefined]);
    mailbox.shift();
    expect(mailbox.isEmpty).toBe(true);
  });
});
