/**
 * A node of a cluster over the network: who its members are, where they are reached, and by what each is known.
 *
 * Invariant: the list of members is the same on every node, and so are the numbers of their shards, which follow from it. A node that could
 * not be opened leaves no listener behind.
 */
import { invalidArgument, type ShardloomError } from "./errors.ts";
import type { NodesOptions } from "./plane/node-links.ts";
import { systemWallMs } from "./runtime/clock.ts";
import type { NatsConnection, NatsOptions } from "./runtime/nats.ts";
import { type ServerWaiting, startPatiently } from "./runtime/patience.ts";
import type { Runtime } from "./runtime/runtime.ts";
import type { LeaseStore } from "./topology/lease-store.ts";
import { certificateFiles } from "./transport/certificate-files.ts";
import { type CertificateWatch, watchCertificate } from "./transport/certificate-watch.ts";
import type { NodeCertificate } from "./transport/certificates.ts";
import { isIdentityName, NAME_RULE, nodeOfCertificate } from "./transport/node-identity.ts";
import type { Credentials, Transport } from "./transport/session.ts";
import { createTlsTransport } from "./transport/tls.ts";
import { createWebTransport } from "./transport/webtransport.ts";
import { createWireTransport, type WireTransport } from "./transport/wire-transport.ts";

/** A member of a cluster of several nodes. */
export interface NodeAddress {
  /** 1 to 63 letters, digits, dots, hyphens and underscores; unique. */
  readonly name: string;
  /** Where the others reach it: `tls://HOST:PORT`, or `https://HOST:PORT` for WebTransport. */
  readonly address: string;
  /** Its shards, each a worker, `1..256`. @default 1 */
  readonly shards?: number;
  /** Nodes of one zone fail together: copies are spread over zones. @default a zone of its own */
  readonly zone?: string;
}

/** One process of a cluster of several. */
export interface NodeOptions {
  /** Name of the cluster; its certificates carry it. */
  readonly cluster: string;
  /** Which of the members this is. */
  readonly name: string;
  /** All nodes: the same list, in the same order, for each of them. */
  readonly members: readonly NodeAddress[];
  /** Directory with this node's certificate and key and its authority's certificate, as `shardloom certs` and joining write it. Looked at again now and then. */
  readonly certificates: string;
  /** Where this node listens, when that is not where it is reached; port 0 takes a free one. @default its address */
  readonly listen?: string;
  /**
   * Servers of NATS with JetStream, which keep leases and the map of the cluster: with them the vshards of a lost node get other primaries. The same
   * for all nodes. @default none: a node that is lost keeps what it is primary of
   */
  readonly nats?: NatsServers;
  /** Counts the starts of this node, from 1, higher than ever before. @default counted in `directory`, without which it must be given */
  readonly incarnation?: number;
  /** Somebody was refused: by whom it came, as far as is known, and why; or a new certificate was not usable. @default nobody is told */
  readonly onRefused?: (error: ShardloomError, address: string) => void;
}

/** Where NATS is, and who we are to it. */
export interface NatsServers extends Pick<NatsOptions, "servers" | "user" | "password" | "token" | "tls"> {
  /** Servers that keep each value: 1, 3 or 5. Only counts when the first node starts. @default 1 */
  readonly replicas?: number;
  /** The start waits, as the servers do not answer yet: told after each try, until `startTimeoutMs` is over. @default nobody is told */
  readonly onWaiting?: (waiting: ServerWaiting) => void;
}

const ACTION = "start node";
const SCHEMES: readonly string[] = ["tls:", "https:"];
const MAX_SHARDS = 256;

/**
 * Opens a node: it listens, and serves nobody yet.
 *
 * @param hasDirectory Whether its starts are counted.
 * @param waitMs How long it waits for servers of NATS that do not answer yet.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_NO_FILE`, `ERR_CORRUPT`, `ERR_UNTRUSTED` as its certificate cannot be used;
 *   `ERR_UNAVAILABLE` when the address cannot be had.
 */
export async function openNode(
  options: NodeOptions,
  runtime: Runtime,
  hasDirectory: boolean,
  waitMs: number,
): Promise<NodesOptions> {
  const { cluster, name, listen, certificates, onRefused } = options;
  if (options.incarnation === undefined && !hasDirectory)
    throw invalidArgument(
      ACTION,
      "node.incarnation",
      "given where no directory counts the starts of the node",
      undefined,
    );
  const addresses = checkNodeAddresses(ACTION, options.members);
  const members = numbered(options.members);
  const own = addresses.get(name);
  if (own === undefined) throw invalidArgument(ACTION, "node.name", `one of ${[...addresses.keys()].join(", ")}`, name);
  let network: WireTransport | undefined;
  let nats: NatsConnection | undefined;
  const watch = await watchCertificate(
    certificateFiles(certificates, name),
    (changed) => network?.updateCredentials(credentialsOf(changed)),
    {
      scheduler: runtime.scheduler,
      wallMs: systemWallMs,
      onRefused: (error) => onRefused?.(error, ""),
    },
  );
  try {
    checkIdentity(watch, cluster, name);
    const urls = [...addresses.values(), ...(listen === undefined ? [] : [urlOf(ACTION, "node.listen", listen)])];
    network = await createWireTransport({
      scheduler: runtime.scheduler,
      cluster,
      self: name,
      transports: transportsFor(urls, runtime),
      listen: [listen === undefined ? own : urlOf(ACTION, "node.listen", listen)],
      addressOf: (peer) => addresses.get(peer),
      credentials: credentialsOf(watch.current),
      identify: nodeOfCertificate,
      ...(onRefused === undefined ? {} : { onRefused }),
    });
    const servers = options.nats;
    const patience = { limitMs: waitMs, onWaiting: servers?.onWaiting };
    let leases: LeaseStore | undefined;
    if (servers !== undefined) {
      const { connectNats } = await import("./runtime/nats.ts"); // only who uses it loads it
      leases = await startPatiently(runtime, servers.servers, patience, async () => {
        nats ??= await connectNats({ ...servers, scheduler: runtime.scheduler, name });
        return leasesIn(nats, options, runtime);
      });
    }
    return {
      cluster,
      self: name,
      incarnation: options.incarnation ?? 1,
      members,
      transport: closing(network, watch, nats),
      ...(leases === undefined ? {} : { leases }),
    };
  } catch (error) {
    watch.close();
    network?.close();
    void nats?.close();
    throw error;
  }
}

/** A bucket of the cluster's own. */
async function leasesIn(
  nats: NatsConnection,
  { cluster, nats: servers }: NodeOptions,
  { scheduler }: Runtime,
): Promise<LeaseStore> {
  const bucket = `shardloom-${cluster.replace(/[^A-Za-z0-9_-]/g, "-")}`;
  const { createNatsLeaseStore } = await import("./topology/nats-lease-store.ts");
  const replicas = servers?.replicas === undefined ? {} : { replicas: servers.replicas };
  return createNatsLeaseStore(nats, { bucket, scheduler, ...replicas });
}

/**
 * Where each of a cluster's nodes is reached, by name.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the member and the rule.
 */
export function checkNodeAddresses(action: string, members: readonly NodeAddress[]): ReadonlyMap<string, URL> {
  if (!Array.isArray(members) || members.length < 2)
    throw invalidArgument(action, "members", "a list of at least 2 nodes", members);
  const addresses = new Map<string, URL>();
  for (const [at, { name, address, shards = 1 }] of (members as readonly NodeAddress[]).entries()) {
    if (!isIdentityName(name)) throw invalidArgument(action, `members[${at}].name`, NAME_RULE, name);
    if (addresses.has(name)) throw invalidArgument(action, `members[${at}].name`, "another than those before", name);
    if (!Number.isInteger(shards) || shards < 1 || shards > MAX_SHARDS)
      throw invalidArgument(action, `members[${at}].shards`, `an integer between 1 and ${MAX_SHARDS}`, shards);
    const url = urlOf(action, `members[${at}].address`, address);
    if (url.port === "0" || url.port === "")
      throw invalidArgument(action, `members[${at}].address`, "one with a port of its own", address);
    addresses.set(name, url);
  }
  return addresses;
}

/** The members with the numbers of their shards: in the order of the list, without a gap. */
function numbered(members: readonly NodeAddress[]): NodesOptions["members"] {
  let next = 0;
  return members.map(({ name, shards = 1, zone }) => {
    const first = next;
    next += shards;
    const own = Array.from({ length: shards }, (_, shard) => first + shard);
    return { name, shards: own, ...(zone === undefined ? {} : { zone }) };
  });
}

function urlOf(action: string, name: string, text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !SCHEMES.includes(url.protocol) || url.hostname === "")
    throw invalidArgument(action, name, "tls://HOST:PORT or https://HOST:PORT", text);
  return url;
}

function transportsFor(urls: readonly URL[], { scheduler, random }: Runtime): Transport[] {
  const uses = (protocol: string): boolean => urls.some((url) => url.protocol === protocol);
  return [
    ...(uses("tls:") ? [createTlsTransport({ scheduler, random })] : []),
    ...(uses("https:") ? [createWebTransport({ scheduler })] : []),
  ];
}

function credentialsOf({ certificate, key, authority }: NodeCertificate): Credentials {
  return { certificate, key, authorities: [authority] };
}

function checkIdentity({ current }: CertificateWatch, cluster: string, name: string): void {
  if (current.cluster !== cluster)
    throw invalidArgument(ACTION, "node.cluster", `that of its certificate, ${current.cluster}`, cluster);
  if (current.node !== name)
    throw invalidArgument(ACTION, "node.name", `that of its certificate, ${current.node}`, name);
}

/** The network, with which the watch over its certificate ends, and the connection to who grants leases. */
function closing(
  network: WireTransport,
  watch: CertificateWatch,
  nats: NatsConnection | undefined,
): NodesOptions["transport"] {
  return {
    dial: (peer, handler) => network.dial(peer, handler),
    listen: (accept) => network.listen(accept),
    close: () => {
      watch.close();
      network.close();
      void nats?.close();
    },
  };
}
