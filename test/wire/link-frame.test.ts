/** Frames between nodes: whole or refused. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bodyOf,
  frameOf,
  LINK_FRAME,
  type LinkFrameKind,
  openDatagram,
  openFrame,
  sealDatagram,
  sealFrame,
} from "../../src/wire/link-frame.ts";
import { decodeHello, encodeHello, type LinkHello } from "../../src/wire/link-hello.ts";

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const header = fc.record({
  kind: fc.constantFrom<LinkFrameKind>(...Object.values(LINK_FRAME)),
  flags: fc.integer({ min: 0, max: 255 }),
  type: fc.integer({ min: 0, max: 65_535 }),
  call: word,
  shard: fc.integer({ min: 0, max: 255 }),
  incarnation: word,
});

describe("a frame", () => {
  it("comes out as it went in, at any alignment", () => {
    fc.assert(
      fc.property(header, fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 9 }), (head, body, shift) => {
        const sealed = sealFrame(frameOf(head, body));
        const moved = new Uint8Array(sealed.length + shift);
        moved.set(sealed, shift);
        const frame = openFrame(moved.subarray(shift));
        expect(frame).toMatchObject(head);
        expect([...bodyOf(frame)]).toEqual([...body]);
      }),
    );
  });

  it("with any bit changed, cut short or made longer, is refused", () => {
    fc.assert(
      fc.property(
        header,
        fc.uint8Array({ maxLength: 60 }),
        fc.nat(),
        fc.integer({ min: 1, max: 30 }),
        (head, body, bit, cut) => {
          const sealed = sealFrame(frameOf(head, body));
          const flipped = sealed.slice();
          const at = (bit >> 3) % flipped.length;
          flipped[at] = (flipped[at] as number) ^ (1 << (bit & 7));
          const longer = new Uint8Array(sealed.length + cut);
          longer.set(sealed);
          for (const bad of [flipped, sealed.slice(0, Math.max(0, sealed.length - cut)), longer])
            expect(() => openFrame(bad)).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
        },
      ),
    );
  });

  it("has no checksum on a connection that has its own, and is not taken for one that has", () => {
    fc.assert(
      fc.property(header, fc.uint8Array({ maxLength: 9_000 }), (head, body) => {
        const bare = sealFrame(frameOf(head, body), true);
        expect(openFrame(bare, true)).toMatchObject(head);
        expect(Buffer.compare(bodyOf(openFrame(bare, true)), body)).toBe(0);
        expect(() => openFrame(sealFrame(frameOf(head, body)), true)).toThrow(/checksum/);
        expect(() => openFrame(bare)).toThrow(/checksum/);
      }),
    );
  });

  it("of no known kind is refused, whatever its checksum says", () => {
    const sealed = sealFrame(frameOf({ kind: 99 as LinkFrameKind }, new Uint8Array(3)));
    expect(() => openFrame(sealed)).toThrow(/of a known kind: current value is 99/);
  });
});

describe("a datagram", () => {
  it("comes out as it went in, or not at all", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(), (body, bit) => {
        const sealed = sealDatagram(body);
        expect(openDatagram(sealed)).toEqual(body);
        const at = (bit >> 3) % sealed.length;
        sealed[at] = (sealed[at] as number) ^ (1 << (bit & 7));
        expect(openDatagram(sealed)).toBeUndefined();
      }),
    );
    expect(openDatagram(new Uint8Array(3))).toBeUndefined();
  });
});

describe("a greeting", () => {
  const hello: LinkHello = {
    protocol: 1,
    name: "a",
    incarnation: 1,
    attempt: 0,
    shards: 2,
    vshards: 16,
    replicationFactor: 1,
    actors: 5,
    mapEpoch: 1,
    map: 7,
  };

  it("comes out as it went in", () => {
    expect(decodeHello(encodeHello(hello))).toEqual(hello);
  });

  it.each(Object.keys(hello))("without its %s is refused", (name) => {
    expect(() => decodeHello(encodeHello({ ...hello, [name]: undefined as never }))).toThrow(
      expect.objectContaining({ code: "ERR_CORRUPT" }),
    );
  });
});
