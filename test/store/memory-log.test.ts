/** The log in memory against a plain list: what it keeps, what it forgets, and in which order. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { MemoryLog } from "../../src/store/memory-log.ts";

const record = (size: number, type = 1) => ({ type, collection: 1, body: new Uint8Array(size) });

describe("a log", () => {
  test("gives LSNs from 1 on, without gaps", () => {
    const log = new MemoryLog();
    expect([log.head, log.first]).toEqual([0, 1]);
    expect([log.append(record(1), 10), log.append(record(1), 11), log.append(record(1), 12)]).toEqual([1, 2, 3]);
    expect(log.read(2, 9).map(({ lsn, atMs }) => [lsn, atMs])).toEqual([
      [2, 11],
      [3, 12],
    ]);
  });

  test("begins above the head that it is given", () => {
    const log = new MemoryLog({ head: 2 ** 52 });
    expect(log.append(record(0), 0)).toBe(2 ** 52 + 1);
    expect(log.read(2 ** 52, 5)).toEqual([]);
    expect(log.read(2 ** 52 + 1, 5)).toHaveLength(1);
  });

  test("refuses a writer that another one has overtaken, and then appends nothing", () => {
    const log = new MemoryLog();
    log.append(record(1), 0, 0);
    const late = (): number => log.append(record(1), 0, 0);
    expect(late).toThrow(ShardloomError);
    expect(log.head).toBe(1);
    expect(log.append(record(1), 0, 1)).toBe(2);
  });

  test("keeps its newest entry, however large it is", () => {
    const log = new MemoryLog({ maxBytes: 10, maxEntries: 1 });
    log.append(record(8), 0);
    log.append(record(1_000), 0);
    expect(log.read(1, 9)).toEqual([]);
    expect(log.at(2)?.body.length).toBe(1_000);
    expect([log.first, log.byteLength]).toEqual([2, 1_000]);
  });

  test("is a list that forgets from its front, whatever is done to it", () => {
    const step = fc.oneof(
      fc.record({ append: fc.nat(40) }),
      fc.record({ truncate: fc.nat(80) }),
      fc.record({ read: fc.nat(80), limit: fc.nat(6), bytes: fc.nat(100) }),
    );
    const limits = fc.record({ maxEntries: fc.integer({ min: 1, max: 20 }), maxBytes: fc.nat(200), head: fc.nat(30) });
    fc.assert(
      fc.property(limits, fc.array(step, { maxLength: 120 }), (options, steps) => {
        const log = new MemoryLog(options);
        let model: { lsn: number; size: number }[] = [];
        let head = options.head;
        for (const action of steps) {
          if ("append" in action) {
            expect(log.append(record(action.append), head)).toBe(++head);
            model.push({ lsn: head, size: action.append });
            const bytes = (): number => model.reduce((sum, { size }) => sum + size, 0);
            while (model.length > 1 && (model.length > options.maxEntries || bytes() > options.maxBytes)) model.shift();
          } else if ("truncate" in action) {
            log.truncateBelow(action.truncate);
            model = model.filter(({ lsn }) => lsn >= action.truncate);
          } else {
            const from = model.findIndex(({ lsn }) => lsn === action.read);
            const expected: number[] = [];
            let bytes = 0;
            for (const entry of from < 0 ? [] : model.slice(from)) {
              bytes += entry.size;
              if (expected.length === action.limit || (expected.length > 0 && bytes > action.bytes)) break;
              expected.push(entry.lsn);
            }
            expect(log.read(action.read, action.limit, action.bytes).map(({ lsn }) => lsn)).toEqual(expected);
          }
          expect(log.head).toBe(head);
          expect(log.first).toBe(model[0]?.lsn ?? head + 1);
          expect(log.byteLength).toBe(model.reduce((sum, { size }) => sum + size, 0));
        }
      }),
    );
  });
});
