/** Connections to a real nats-server that asks who we are: passwords, tokens, certificates; and calls on one that comes and goes. */
import "reflect-metadata";
import { KeyObject, webcrypto } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DiscardPolicy, jetstreamManager, RetentionPolicy, type StreamConfig } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import * as x509 from "@peculiar/x509";
import { describe, expect, test, vi } from "vitest";
import { connectNats, type NatsOptions } from "../../src/runtime/nats.ts";
import { openNatsBucket } from "../../src/runtime/nats-bucket.ts";
import { openNatsObjects } from "../../src/runtime/nats-objects.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { fails } from "../conformance/disk.ts";
import { NatsServer } from "../support/nats-server.ts";

// A server of its own beside everything else that a busy machine does.
vi.setConfig({ testTimeout: 120_000 });

const CALL_MS = 10_000;

/** Whether a stream can be appended to over it. */
async function check(server: NatsServer): Promise<void> {
  const connection = await server.connect();
  const stream = await connection.openStream({ name: "stream" }, CALL_MS);
  const { last } = await stream.bounds(CALL_MS);
  expect(await stream.append(Uint8Array.of(1, 2), last, CALL_MS)).toBe(last + 1);
  expect(await stream.get(last + 1, CALL_MS).then((bytes) => [...(bytes ?? [])])).toEqual([1, 2]);
}

describe("a connection", () => {
  test.for([
    [["--user", "ann", "--pass", "secret"], { user: "ann", password: "secret" }, { user: "ann", password: "guess" }],
    [["--auth", "token-1"], { token: "token-1" }, { token: "token-2" }],
  ] as const)("is made with %o by who knows it", async ([args, right, wrong]) => {
    await using server = await NatsServer.start({ arguments: args, connection: right });
    await check(server);
    for (const options of [wrong, {}]) await fails(server.connect(options), "ERR_UNAVAILABLE");
  });

  test("is encrypted, with certificates of both sides, and refused without", async () => {
    const directory = await mkdtemp(join(tmpdir(), "shardloom-certificates-"));
    try {
      const [ours, others] = [await authority(), await authority()];
      const [own, client] = [await ours.issue(), await ours.issue()];
      const write = async (name: string, text: string): Promise<string> => {
        await writeFile(join(directory, name), text);
        return join(directory, name);
      };
      const args = ["--tls", "--tlsverify", "--tlscacert", await write("ca", ours.ca)];
      args.push("--tlscert", await write("cert", own.cert), "--tlskey", await write("key", own.key));
      await using server = await NatsServer.start({
        arguments: args,
        connection: { tls: { ca: ours.ca, ...client } },
      });
      const refuses = (tls: NatsOptions["tls"] & object, servers = [server.url]): Promise<void> =>
        fails(server.connect({ servers, tls, connectTimeoutMs: 500 }), "ERR_UNAVAILABLE");
      await check(server);
      await refuses({ ca: others.ca, ...client });
      await refuses({ ca: ours.ca, ...(await others.issue()) });
      await refuses({ ca: ours.ca });
      // Its certificate is for the address.
      await refuses({ ca: ours.ca, ...client }, [server.url.replace("127.0.0.1", "localhost")]);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test("is not made without encryption where that is asked for", async () => {
    await using server = await NatsServer.start();
    await fails(server.connect({ tls: {} }), "ERR_UNAVAILABLE");
    await check(server);
  });

  test("is given up after its time where nobody speaks", async () => {
    await using server = await NatsServer.start();
    await server.freeze();
    const begun = performance.now();
    await fails(server.connect({ connectTimeoutMs: 200 }), "ERR_UNAVAILABLE");
    expect(performance.now() - begun).toBeLessThan(15_000);
    server.thaw();
  });
});

describe("a call", () => {
  test("waits for a connection as long as it may, and says whether it was sent", async () => {
    await using server = await NatsServer.start();
    const connection = await server.connect({ name: "test" });
    const stream = await connection.openStream({ name: "stream" }, CALL_MS);
    await stream.append(Uint8Array.of(1), 0, CALL_MS);
    await server.freeze();
    const sent = expect(stream.append(Uint8Array.of(2), 1, CALL_MS)).rejects.toMatchObject({
      code: "ERR_TIMEOUT",
      details: { inDoubt: true },
    });
    await server.stop("SIGKILL");
    await sent;
    expect(connection.isConnected).toBe(false);
    const unsent = stream.append(Uint8Array.of(3), 1, 50);
    await expect(unsent).rejects.toMatchObject({ code: "ERR_TIMEOUT", details: { inDoubt: false } });
    const waiting = stream.append(Uint8Array.of(4), 1, CALL_MS);
    await server.startAgain();
    expect(await waiting).toBe(2);
    expect([...((await stream.get(2, CALL_MS)) ?? [])]).toEqual([4]);
  });

  test("is refused with the reason, and then nothing was done", async () => {
    await using server = await NatsServer.start();
    const connection = await server.connect();
    const stream = await connection.openStream({ name: "stream", maxBytes: 1_000 }, CALL_MS);
    expect(await stream.bounds(CALL_MS)).toEqual({ first: 1, last: 0 });
    await expect(stream.append(Uint8Array.of(1), 5, CALL_MS)).rejects.toMatchObject({
      code: "ERR_STALE_EPOCH",
      details: { last: 0 },
    });
    await fails(stream.append(new Uint8Array(2_000), 0, CALL_MS), "ERR_DISK_FULL");
    await fails(stream.append(new Uint8Array(2_000_000), 0, CALL_MS), "ERR_RECORD_TOO_LARGE");
    await fails(connection.openStream({ name: "not a name" }, CALL_MS), "ERR_IO");
    await fails(connection.openStream({ name: "too-many", replicas: 3 }, CALL_MS), "ERR_IO");
    await connection.close();
    await connection.close();
    await fails(stream.append(Uint8Array.of(1), 0, CALL_MS), "ERR_CLOSED");
    await fails(connection.openStream({ name: "late" }, CALL_MS), "ERR_CLOSED");
    expect(
      await (await server.connect()).openStream({ name: "stream" }, CALL_MS).then((again) => again.bounds(CALL_MS)),
    ).toEqual({ first: 1, last: 0 });
  });

  test.for(["localhost", "http://127.0.0.1:4222", "nats://127.0.0.1", "nats://:4222"])(
    "cannot be made to %s",
    async (address) => {
      const connecting = connectNats({ servers: [address], scheduler: systemScheduler });
      await expect(connecting).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { value: address } });
    },
  );

  test("opens nothing that forgets by itself, or is of others", async () => {
    await using server = await NatsServer.start();
    const connection = await server.connect();
    const manager = await jetstreamManager(connection.library);
    const base = { subjects: ["shardloom.s"], discard: DiscardPolicy.New };
    const others: Partial<StreamConfig>[] = [
      { ...base, max_age: 1e9 },
      { ...base, discard: DiscardPolicy.Old },
      { ...base, max_msgs: 5 },
      { ...base, max_msgs_per_subject: 5 },
      { ...base, retention: RetentionPolicy.Workqueue },
      { ...base, subjects: ["others.s"] },
    ];
    for (const config of others) {
      await manager.streams.add({ name: "s", ...config });
      await fails(connection.openStream({ name: "s" }, CALL_MS), "ERR_INVALID_ARGUMENT");
      await manager.streams.delete("s");
    }
    await new Kvm(connection.library).create("b", { ttl: 60_000 });
    await new Objm(connection.library).create("o", { ttl: 60e9 });
    await fails(openNatsBucket(connection, { bucket: "b" }, systemScheduler, CALL_MS), "ERR_INVALID_ARGUMENT");
    await fails(openNatsObjects(connection, { store: "o" }, CALL_MS), "ERR_INVALID_ARGUMENT");
  });

  test("goes to another server of the list", async () => {
    await using server = await NatsServer.start();
    const gone = await NatsServer.start();
    await gone[Symbol.asyncDispose]();
    const connection = await connectNats({ servers: [gone.url, server.url], scheduler: systemScheduler });
    expect((await connection.openStream({ name: "stream" }, CALL_MS)).maxMessageBytes).toBeGreaterThan(1e6);
    await connection.close();
  });
});

/** One that signs certificates for this machine, as PEM texts. */
async function authority(): Promise<{ ca: string; issue: () => Promise<{ cert: string; key: string }> }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const newKeys = (): Promise<webcrypto.CryptoKeyPair> =>
    webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const keys = await newKeys();
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=authority",
    keys,
    signingAlgorithm: algorithm,
    extensions: [new x509.BasicConstraintsExtension(true, 1, true)],
  });
  return {
    ca: root.toString("pem"),
    issue: async () => {
      const own = await newKeys();
      const certificate = await x509.X509CertificateGenerator.create({
        subject: "CN=node",
        issuer: root.subject,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: algorithm,
        extensions: [new x509.SubjectAlternativeNameExtension([{ type: "ip", value: "127.0.0.1" }])],
      });
      const key = KeyObject.from(own.privateKey).export({ type: "pkcs8", format: "pem" });
      return { cert: certificate.toString("pem"), key: String(key) };
    },
  };
}
