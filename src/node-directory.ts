/**
 * The directory of one node of several: what it is called, who the others are, its certificate, and what it keeps.
 *
 * ```
 *  node.json         cluster, name, members, and what must be the same on every node
 *  certificates/     this node's certificate and key, the authority's certificate; where the cluster was founded also the authority's key
 *  shards/           what the cluster keeps, see `ClusterOptions.directory`; not there when NATS keeps it
 * ```
 *
 * Invariant: a directory without node.json is none, so that a node whose founding or joining was broken off does it again. An invitation holds a
 * token for one node: a secret that can be used once.
 */
import { basename, dirname, join, resolve } from "node:path";
import type { ClusterOptions } from "./cluster-options.ts";
import { checkNodeAddresses, type NodeAddress } from "./cluster-wire.ts";
import { describeValue, invalidArgument, ShardloomError } from "./errors.ts";
import { systemWallMs } from "./runtime/clock.ts";
import { createSystemDisk, openSystemDisk } from "./runtime/disk.ts";
import { systemScheduler } from "./runtime/scheduler.ts";
import { readCheckedJson, writeCheckedJson } from "./store/checked-json.ts";
import {
  authorityFiles,
  certificateFiles,
  isThere,
  readAuthorityFiles,
  readCertificateFiles,
  writeAuthorityFiles,
  writeCertificateFiles,
} from "./transport/certificate-files.ts";
import { createAuthority, issueCertificate } from "./transport/certificates.ts";
import { createJoinAcceptor, type JoinOutcome } from "./transport/join-protocol.ts";
import { type JoinListener, joinAt, listenForJoins } from "./transport/join-tls.ts";
import { createJoinToken, readJoinToken } from "./transport/join-token.ts";
import { openUsedTokens } from "./transport/used-tokens.ts";

/** What all nodes of a cluster must agree about. */
export interface ClusterCharter {
  /** Name of the cluster. */
  readonly cluster: string;
  /** All nodes, in the order that their shards are numbered in. */
  readonly members: readonly NodeAddress[];
  /** Copies of every vshard. @default 1 */
  readonly replicationFactor?: number;
  /** Addresses of NATS servers, `nats://HOST:PORT`, that keep leases and the map, see `NodeOptions.nats`. @default none */
  readonly nats?: readonly string[];
  /** Where nodes keep their shards: in NATS, see `ClusterOptions.nats`. Needs `nats`. @default in their directories */
  readonly keep?: "nats";
  /** Virtual shards, a power of two. @default 64, or as many as there are shards */
  readonly vshards?: number;
}

/** A node, as its directory says. */
export interface NodeRecord extends ClusterCharter {
  readonly name: string;
}

/** What lets a node join: give it to {@link joinCluster} on that node. */
export interface Invitation {
  readonly node: string;
  /** One line of letters, digits, dots and hyphens. */
  readonly text: string;
}

/** Waits for nodes that were invited. */
export interface OpenInvitations {
  readonly invitations: readonly Invitation[];
  /** Invites nobody any more. */
  close(): Promise<void>;
}

const RECORD = "node.json";
const CERTIFICATES = "certificates";
const SHARDS = "shards";
const FORMAT = 1;
const PREFIX = "shardloom-invitation-1.";
const MAX_INVITATION_LENGTH = 256 * 1024;

/**
 * Founds a cluster in a directory: makes its authority and the first node's certificate.
 *
 * @param name Which of the members this node is.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_FILE_EXISTS` when the directory is a node's; and as disks do.
 */
export async function foundCluster(directory: string, name: string, charter: ClusterCharter): Promise<NodeRecord> {
  const { cluster, keep, nats } = charter;
  if (keep !== undefined && (keep !== "nats" || nats === undefined))
    throw invalidArgument("found cluster", "keep", '"nats", with servers of NATS, or absent', keep);
  const addresses = checkNodeAddresses("found cluster", charter.members);
  const own = addresses.get(name);
  if (own === undefined)
    throw invalidArgument("found cluster", "name", `one of ${[...addresses.keys()].join(", ")}`, name);
  const disk = await createSystemDisk(directory);
  if ((await readCheckedJson(disk, RECORD, FORMAT)) !== undefined) throw isNode("found cluster", directory);
  const certificates = join(directory, CERTIFICATES);
  if (!(await isThere(authorityFiles(certificates).key)))
    await writeAuthorityFiles(certificates, await createAuthority({ name: cluster, wallMs: systemWallMs() }));
  const authority = await readAuthorityFiles(certificates);
  const hosts = hostsOf(own);
  const issued = await issueCertificate(authority, { node: name, hosts, wallMs: systemWallMs() });
  await writeCertificateFiles(certificateFiles(certificates, name), issued, { replace: true });
  const record: NodeRecord = { ...charter, name };
  await writeCheckedJson(disk, RECORD, FORMAT, record);
  return record;
}

/** What a directory says of its node. @throws {ShardloomError} `ERR_NO_FILE` when it is no node's, `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`, and as disks do. */
export async function readNodeRecord(directory: string): Promise<NodeRecord> {
  const content = await readCheckedJson(await openSystemDisk(directory), RECORD, FORMAT);
  if (content === undefined)
    throw new ShardloomError(
      "ERR_NO_FILE",
      `Cannot open ${directory} as a node as it must have ${RECORD}: it has none`,
    );
  return recordOf(content, RECORD);
}

/**
 * Where things are that a directory names: what a cluster keeps, and the node's directory that this is in, if it is in one. Either may be named.
 *
 * @throws {ShardloomError} As {@link readNodeRecord}, but for `ERR_NO_FILE`.
 */
export async function placesOf(directory: string): Promise<{ readonly home?: string; readonly data: string }> {
  const named = resolve(directory);
  if (await isHome(named)) return { home: named, data: join(named, SHARDS) };
  if (basename(named) === SHARDS && (await isHome(dirname(named)))) return { home: dirname(named), data: named };
  return { data: directory };
}

async function isHome(directory: string): Promise<boolean> {
  try {
    await readNodeRecord(directory);
    return true;
  } catch (error) {
    if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return false;
    throw error;
  }
}

/** The options of `Cluster.start` for the node of a directory; more may be added. @throws {ShardloomError} As {@link readNodeRecord}. */
export async function nodeOptions(directory: string): Promise<Required<Pick<ClusterOptions, "node">> & ClusterOptions> {
  const { cluster, name, members, replicationFactor, vshards, nats, keep } = await readNodeRecord(directory);
  const isInNats = keep === "nats" && nats !== undefined;
  return {
    ...(isInNats ? { nats: { servers: nats } } : { directory: join(directory, SHARDS) }),
    node: {
      cluster,
      name,
      members,
      certificates: join(directory, CERTIFICATES),
      ...(nats === undefined ? {} : { nats: { servers: nats } }),
    },
    ...(replicationFactor === undefined ? {} : { replicationFactor }),
    ...(vshards === undefined ? {} : { vshards }),
  };
}

/**
 * Invites other members from the directory that the cluster was founded in, and waits for them on this machine's address of that node.
 *
 * @param nodes Names of those to invite. @default all members without this one
 * @param onOutcome Told of everybody who has come.
 * @throws {ShardloomError} `ERR_NO_FILE` where the authority's key is not; as {@link readNodeRecord}; `ERR_UNAVAILABLE`.
 */
export async function inviteNodes(
  directory: string,
  nodes: readonly string[] | undefined,
  onOutcome: (outcome: Pick<JoinOutcome, "joined" | "refused">, from: string) => void = () => undefined,
): Promise<OpenInvitations> {
  const { name, ...charter } = await readNodeRecord(directory);
  const certificates = join(directory, CERTIFICATES);
  const addresses = checkNodeAddresses("invite nodes", charter.members);
  const authority = await readAuthorityFiles(certificates);
  const wallMs = systemWallMs;
  const own = addresses.get(name) as URL;
  const listener = await listenForJoins(new URL(`tls://${own.hostname}:0`), {
    scheduler: systemScheduler,
    certificate: await readCertificateFiles(certificateFiles(certificates, name)),
    acceptor: createJoinAcceptor({ authority, used: await openUsedTokens(await openSystemDisk(directory)), wallMs }),
    onJoined: (joined, from) => onOutcome({ joined }, from),
    onRefused: (refused, from) => onOutcome({ refused }, from),
  });
  try {
    const invitations = (nodes ?? [...addresses.keys()].filter((node) => node !== name)).map((node): Invitation => {
      const address = addresses.get(node);
      if (address === undefined)
        throw invalidArgument("invite nodes", "nodes", `members, of ${[...addresses.keys()].join(", ")}`, node);
      const token = createJoinToken(authority, { node, hosts: hostsOf(address), wallMs: wallMs() });
      return { node, text: encodeInvitation(listener, token, charter) };
    });
    return { invitations, close: () => listener.close() };
  } catch (error) {
    await listener.close();
    throw error;
  }
}

/**
 * Makes a directory that of the node which an invitation is for.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when the text is no invitation; `ERR_FILE_EXISTS` when the directory is a node's; `ERR_UNTRUSTED`,
 *   `ERR_UNAVAILABLE`, `ERR_TIMEOUT` as joining may end; and as disks do.
 */
export async function joinCluster(directory: string, invitation: string): Promise<NodeRecord> {
  const { address, token, charter } = decodeInvitation(invitation);
  const { node } = readJoinToken(token);
  const disk = await createSystemDisk(directory);
  if ((await readCheckedJson(disk, RECORD, FORMAT)) !== undefined) throw isNode("join cluster", directory);
  const certificate = await joinAt(address, token, { scheduler: systemScheduler, wallMs: systemWallMs });
  const files = certificateFiles(join(directory, CERTIFICATES), node);
  await writeCertificateFiles(files, certificate, { replace: true });
  const record = recordOf({ ...charter, name: node }, "invitation");
  await writeCheckedJson(disk, RECORD, FORMAT, record);
  return record;
}

function encodeInvitation({ address }: JoinListener, token: string, charter: ClusterCharter): string {
  const content = JSON.stringify({ address: address.href, token, charter });
  return `${PREFIX}${Buffer.from(content).toString("base64url")}`;
}

function decodeInvitation(text: string): { address: URL; token: string; charter: ClusterCharter } {
  const trimmed = text.trim();
  try {
    if (!trimmed.startsWith(PREFIX) || trimmed.length > MAX_INVITATION_LENGTH)
      throw new Error("it begins otherwise, or is too long");
    const content = JSON.parse(Buffer.from(trimmed.slice(PREFIX.length), "base64url").toString()) as {
      address: string;
      token: string;
      charter: ClusterCharter;
    };
    return { address: new URL(content.address), token: String(content.token), charter: content.charter };
  } catch (cause) {
    throw new ShardloomError("ERR_CORRUPT", "Cannot join cluster as the invitation must be whole, as it was printed", {
      cause,
    });
  }
}

/** Checks what a file or an invitation says. */
function recordOf(content: unknown, from: string): NodeRecord {
  const record = (typeof content === "object" && content !== null ? content : {}) as Partial<NodeRecord>;
  const { cluster, name, members, replicationFactor, vshards, nats, keep } = record;
  const isRecord =
    typeof cluster === "string" && typeof name === "string" && Array.isArray(members) && members.every(isAddress);
  const isNats = nats === undefined || (Array.isArray(nats) && nats.every((server) => typeof server === "string"));
  const isKept = keep === undefined || (keep === "nats" && nats !== undefined);
  if (!isRecord || !isCount(replicationFactor) || !isCount(vshards) || !isNats || !isKept)
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot read node from ${from} as it must have cluster, name and members: current value is ${describeValue(content)}`,
    );
  const addresses = checkNodeAddresses("read node", members);
  if (!addresses.has(name))
    throw invalidArgument("read node", "name", `one of ${[...addresses.keys()].join(", ")}`, name);
  return {
    cluster,
    name,
    members,
    ...(replicationFactor === undefined ? {} : { replicationFactor }),
    ...(vshards === undefined ? {} : { vshards }),
    ...(nats === undefined ? {} : { nats }),
    ...(keep === undefined ? {} : { keep }),
  };
}

function isAddress(member: unknown): member is NodeAddress {
  const { name, address } = (member ?? {}) as Partial<NodeAddress>;
  return typeof name === "string" && typeof address === "string";
}

function isCount(value: unknown): boolean {
  return value === undefined || (Number.isInteger(value) && (value as number) > 0);
}

function hostsOf({ hostname }: URL): string[] {
  const host = hostname.replace(/^\[|\]$/g, "");
  return [...new Set([host, ...(host === "127.0.0.1" || host === "::1" ? ["localhost"] : [])])];
}

function isNode(action: string, directory: string): ShardloomError {
  return new ShardloomError(
    "ERR_FILE_EXISTS",
    `Cannot ${action} in ${directory} as it must be empty: it is the directory of a node`,
  );
}
