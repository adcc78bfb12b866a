/** Joins over real connections: a node with nothing but a token gets its certificate, and nobody gets anything by other means. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect as connectPlain, createServer as createPlainServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, createServer, type TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createAuthority, issueCertificate } from "../../src/transport/certificates.ts";
import { createJoinAcceptor, MAX_JOIN_MESSAGE_BYTES } from "../../src/transport/join-protocol.ts";
import {
  createJoinService,
  JOIN_ALPN,
  type JoinListener,
  type JoinListenOptions,
  joinAt,
  listenForJoins,
} from "../../src/transport/join-tls.ts";
import { createJoinToken } from "../../src/transport/join-token.ts";
import { openUsedTokens } from "../../src/transport/used-tokens.ts";
import { readCertificate } from "../../src/transport/x509.ts";
import { eventually } from "../support/cluster.ts";
import { refusalOf } from "../support/refusals.ts";

const root = await mkdtemp(join(tmpdir(), "shardloom-join-tls-"));
afterAll(() => rm(root, { recursive: true, force: true }));
const nowMs = Date.now();
const authority = await createAuthority({ name: "shop", wallMs: nowMs });
const a = await issueCertificate(authority, { node: "a", wallMs: nowMs });
const used = await openUsedTokens(await createSystemDisk(root));
const acceptor = createJoinAcceptor({ authority, used, wallMs: Date.now });
const limits = { scheduler: systemScheduler, wallMs: Date.now };
const LOCAL = new URL("tls://127.0.0.1:0");

function tokenFor(node: string): string {
  return createJoinToken(authority, { node, hosts: ["127.0.0.1"], wallMs: Date.now() });
}

describe("a listener for joins", () => {
  let listener: JoinListener;
  let joined: string[] = [];
  let refused: string[] = [];
  const start = async (options: Partial<JoinListenOptions> = {}): Promise<JoinListener> => {
    const [toJoined, toRefused] = [joined, refused]; // of this test, whatever comes later
    return listenForJoins(LOCAL, {
      scheduler: systemScheduler,
      certificate: a,
      acceptor,
      onJoined: ({ node }, from) => toJoined.push(`${node} from ${from}`),
      onRefused: ({ code }) => toRefused.push(code),
      ...options,
    });
  };
  beforeEach(async () => {
    [joined, refused] = [[], []];
    listener = await start();
  });
  afterEach(() => listener.close());

  /** A stranger's connection, whose protocol is the right one. */
  async function stranger(to = listener, protocol = JOIN_ALPN): Promise<TLSSocket> {
    const socket = connect({
      host: "127.0.0.1",
      port: Number(to.address.port),
      rejectUnauthorized: false,
      ALPNProtocols: [protocol],
    });
    socket.on("error", () => undefined);
    await once(socket, "secureConnect");
    return socket;
  }

  test("gives each node its certificate, once for a token", async () => {
    const token = tokenFor("b");
    const b = await joinAt(listener.address, token, limits);
    expect(b).toMatchObject({ cluster: "shop", node: "b", authority: authority.certificate });
    expect(readCertificate(b.certificate).names).toContainEqual({ kind: "ip", value: "127.0.0.1" });
    await expect(joinAt(listener.address, token, limits)).rejects.toThrow(
      "Cannot join as node b as the token must not have been used before",
    );
    const more = await Promise.all(["c", "d", "e"].map((node) => joinAt(listener.address, tokenFor(node), limits)));
    expect(more.map(({ node }) => node)).toEqual(["c", "d", "e"]);
    await eventually("all are told", () => joined.length === 4 && refused.length === 1);
    expect(joined).toContain("b from 127.0.0.1");
    expect(refused).toEqual(["ERR_UNTRUSTED"]);
  });

  test("goes on with a new certificate after a rotation", async () => {
    const next = await issueCertificate(authority, { node: "a", wallMs: Date.now() });
    const before = await stranger();
    listener.updateCertificate(next);
    expect((await joinAt(listener.address, tokenFor("b"), limits)).node).toBe("b");
    const after = await stranger();
    const shown = [before, after].map((socket) => new Uint8Array(socket.getPeerCertificate().raw));
    expect(shown).toEqual([a, next].map(({ certificate }) => readCertificate(certificate).der));
    for (const socket of [before, after]) socket.destroy();
  });

  test("is not believed by who has another authority's token, and never sees it", async () => {
    const other = await createAuthority({ name: "shop", wallMs: nowMs });
    const token = createJoinToken(other, { node: "b", wallMs: Date.now() });
    await expect(joinAt(listener.address, token, limits)).rejects.toThrow(
      "the acceptor's authority must be the token's",
    );
    await eventually("the listener has noticed", () => refused.length === 1);
    expect(refused).toEqual(["ERR_UNAVAILABLE"]); // the connection ended without a request
  });

  test("cuts off who is silent, who sends too much, and who speaks another protocol", async () => {
    const hasty = await start({ timeoutMs: 300 });
    const silent = await stranger(hasty);
    await once(silent.resume(), "close");
    expect(refused).toEqual(["ERR_TIMEOUT"]);
    await hasty.close();
    const long = await stranger();
    long.resume().write(Buffer.alloc(MAX_JOIN_MESSAGE_BYTES + 100_000, "x"));
    await once(long, "close");
    await eventually("the long message is refused", () => refused.length === 2);
    expect(refused[1]).toBe("ERR_CORRUPT");
    await expect(stranger(listener, "h2")).rejects.toThrow(/no application protocol/i);
    const nonsense = await stranger();
    const answers: string[] = [];
    nonsense.on("data", (chunk: Buffer) => answers.push(chunk.toString())).write("nonsense\n");
    await once(nonsense, "close");
    expect(answers.join("").split("\n")[1]).toContain('"ERR_CORRUPT"');
    expect((await joinAt(listener.address, tokenFor("b"), limits)).node).toBe("b");
  });

  test("has at most so many connections at once", async () => {
    const small = await start({ maxJoins: 2 });
    const open = [await stranger(small), await stranger(small)];
    expect(await refusalOf(() => joinAt(small.address, tokenFor("b"), limits))).toBe("ERR_UNAVAILABLE");
    await eventually("the third is refused", () => refused.includes("ERR_OVERLOADED"));
    for (const socket of open) socket.destroy();
    await eventually("the two are gone", () => refused.filter((code) => code === "ERR_UNAVAILABLE").length === 2);
    expect((await joinAt(small.address, tokenFor("b"), limits)).node).toBe("b");
    await small.close();
  });

  test("closes with connections that are open, and leaves its address", async () => {
    const open = await stranger();
    const mute = connectPlain(Number(listener.address.port), "127.0.0.1"); // never begins its handshake
    await once(mute, "connect");
    const ends = [open, mute].map((socket) => once(socket.on("error", () => undefined).resume(), "close"));
    const startedMs = performance.now();
    await listener.close();
    await Promise.all(ends);
    expect(performance.now() - startedMs).toBeLessThan(10_000); // not by the time limit of a join
    expect(await refusalOf(() => joinAt(listener.address, tokenFor("b"), limits))).toBe("ERR_UNAVAILABLE");
    const again = await listenForJoins(listener.address, { scheduler: systemScheduler, certificate: a, acceptor });
    const taken = () => listenForJoins(again.address, { scheduler: systemScheduler, certificate: a, acceptor });
    expect(await refusalOf(taken)).toBe("ERR_UNAVAILABLE");
    await again.close();
  });
});

describe("who joins", () => {
  async function served(handle: (socket: TLSSocket) => void, protocols: string[] = [JOIN_ALPN]) {
    const server = createServer({ cert: a.certificate, key: a.key, ALPNProtocols: protocols }, (socket) => {
      socket.on("error", () => undefined);
      handle(socket);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    return { server, address: new URL(`tls://127.0.0.1:${port}`) };
  }

  test("can dial a listener of another protocol that hands it over", async () => {
    const ends: string[] = [];
    const service = createJoinService({
      ...limits,
      acceptor,
      maxJoins: 1,
      onJoined: ({ node }) => ends.push(node),
      onRefused: ({ code }) => ends.push(code),
    });
    const { server, address } = await served((socket) => service.serve(socket), ["nodes", JOIN_ALPN]);
    const plain = (ALPNProtocols: string[]): TLSSocket =>
      connect({ host: "127.0.0.1", port: Number(address.port), rejectUnauthorized: false, ALPNProtocols })
        .on("error", () => undefined)
        .resume();
    expect((await joinAt(address, tokenFor("b"), limits)).node).toBe("b");
    await once(plain(["nodes"]), "close"); // handed over by mistake
    const first = plain([JOIN_ALPN]);
    await once(first, "secureConnect");
    await once(plain([JOIN_ALPN]), "close");
    first.destroy();
    await eventually("all have ended", () => ends.length === 4);
    expect(ends).toEqual(["b", "ERR_VERSION_MISMATCH", "ERR_OVERLOADED", "ERR_UNAVAILABLE"]);
    expect((await joinAt(address, tokenFor("c"), limits)).node).toBe("c");
    server.close();
  });

  test("is told that nobody accepts joins there", async () => {
    const { server, address } = await served(() => undefined, ["nodes"]);
    await expect(joinAt(address, tokenFor("b"), limits)).rejects.toThrow("as nobody accepts joins there");
    server.close();
  });

  test("gives up in time, whatever the other side does not do", async () => {
    const hasty = { ...limits, timeoutMs: 300 };
    const { server, address } = await served(() => undefined);
    expect(await refusalOf(() => joinAt(address, tokenFor("b"), hasty))).toBe("ERR_TIMEOUT");
    server.close();
    const sockets: Socket[] = [];
    const mute = createPlainServer((socket) => void sockets.push(socket)).listen(0, "127.0.0.1");
    await once(mute, "listening");
    const { port } = mute.address() as AddressInfo;
    const dial = () => joinAt(new URL(`tls://127.0.0.1:${port}`), tokenFor("b"), hasty);
    expect(await refusalOf(dial)).toBe("ERR_TIMEOUT");
    for (const socket of sockets) socket.destroy();
    mute.close();
  });

  test("refuses addresses that are none, and tokens before it dials", async () => {
    for (const address of ["https://a:1", "tls://a", "tls:a"])
      expect(await refusalOf(() => joinAt(new URL(address), tokenFor("b"), limits))).toBe("ERR_INVALID_ARGUMENT");
    const dial = (): Promise<unknown> => joinAt(new URL("tls://127.0.0.1:1"), "x", limits);
    expect(await refusalOf(dial)).toBe("ERR_CORRUPT");
    const gone = await joinAt(new URL("tls://127.0.0.1:1"), tokenFor("b"), limits).catch((error: unknown) => error);
    expect((gone as ShardloomError).message).toContain("Cannot join at 127.0.0.1:1 as the connection failed");
  });
});
