/** What both processes of the bench `wire` are made from: certificates, ports, networks, a second process. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { NodeOptions } from "../../src/cluster-wire.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { certificateFiles, writeCertificateFiles } from "../../src/transport/certificate-files.ts";
import { createAuthority, issueCertificate } from "../../src/transport/certificates.ts";
import { nodeOfCertificate } from "../../src/transport/node-identity.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { createTlsTransport } from "../../src/transport/tls.ts";
import { createWebTransport } from "../../src/transport/webtransport.ts";
import { createWireTransport, type WireTransport } from "../../src/transport/wire-transport.ts";

export const ACTORS_URL: URL = new URL("./wire-actors.js", import.meta.url);
const CHILD: string = fileURLToPath(new URL("./wire-child.js", import.meta.url));
const CLUSTER = "bench";

/** What the other process is told. */
export interface WirePeerOptions {
  readonly node: NodeOptions;
  readonly credentials: Credentials;
}

/** Where the other process can be reached. */
export interface WirePorts {
  readonly echo: number;
  readonly forward: number;
  readonly bulk: number;
  readonly web: number;
  readonly tls: string;
  readonly https: string;
}

/** Two nodes, `a` here and `b` there, with certificates below a directory. */
export interface WirePair {
  readonly nodes: readonly [NodeOptions, NodeOptions];
  readonly credentials: readonly [Credentials, Credentials];
}

export async function createPair(root: string): Promise<WirePair> {
  const authority = await createAuthority({ name: CLUSTER, wallMs: Date.now() });
  const names = ["a", "b"] as const;
  const members = await Promise.all(
    names.map(async (name) => ({ name, address: `tls://127.0.0.1:${await freePort()}`, shards: 1 })),
  );
  const made = await Promise.all(
    names.map(async (name) => {
      const issued = await issueCertificate(authority, { node: name, hosts: ["127.0.0.1"], wallMs: Date.now() });
      const certificates = join(root, name);
      await writeCertificateFiles(certificateFiles(certificates, name), issued);
      const { certificate, key } = issued;
      const node: NodeOptions = { cluster: CLUSTER, name, members, certificates, incarnation: 1 };
      return { node, credentials: { certificate, key, authorities: [issued.authority] } };
    }),
  );
  const [a, b] = made as [(typeof made)[number], (typeof made)[number]];
  return { nodes: [a.node, b.node], credentials: [a.credentials, b.credentials] };
}

/** A port that nobody listens on at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** A node's network by itself. */
export function networkOf(
  self: string,
  scheme: "tls" | "https",
  credentials: Credentials,
  listen: readonly URL[],
  addressOf: (peer: string) => URL | undefined,
): Promise<WireTransport> {
  const scheduler = systemScheduler;
  return createWireTransport({
    ...{ scheduler, cluster: CLUSTER, self, listen, addressOf, credentials },
    transports: [
      scheme === "tls" ? createTlsTransport({ scheduler, random: systemRandom }) : createWebTransport({ scheduler }),
    ],
    identify: nodeOfCertificate,
  });
}

/** Starts the second process. @returns it, and where it is reached */
export async function startPeer(options: WirePeerOptions): Promise<{ child: ChildProcess; ports: WirePorts }> {
  const child = fork(CHILD, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  child.send(options);
  const failed = once(child, "exit").then(() => {
    throw new Error("the second process ended before it could be reached");
  });
  failed.catch(() => undefined);
  const [ports] = (await Promise.race([once(child, "message"), failed])) as [WirePorts];
  return { child, ports };
}

/** The second process of Moleculer. */
export function startMoleculerPeer(env: Readonly<Record<string, string>>): ChildProcess {
  return fork(CHILD, ["moleculer"], { stdio: ["ignore", "ignore", "inherit", "ipc"], env: { ...process.env, ...env } });
}
