/**
 * `shardloom certs`: the authority of a cluster, certificates of its nodes, tokens for nodes that join. Needs no other program.
 *
 * Invariant: nothing that is there is replaced without `--force`; keys are written for their owner alone and never shown; an option that an action
 * has no use for is wrong usage. Standard output of `token` is the token and nothing else, so that a shell can take it.
 */

import { type ErrorCode, ShardloomError } from "../errors.ts";
import {
  authorityFiles,
  certificateFiles,
  isOpenToOthers,
  isThere,
  nodesIn,
  readAuthorityFiles,
  readCertificateFiles,
  readPemFile,
  replaceCertificateFile,
  writeAuthorityFiles,
  writeCertificateFiles,
} from "../transport/certificate-files.ts";
import {
  checkAuthority,
  checkNodeCertificate,
  createAuthority,
  issueCertificate,
  type KeyedCertificate,
  renewCertificate,
} from "../transport/certificates.ts";
import { createJoinToken, MAX_TOKEN_MINUTES, readJoinToken, TOKEN_MINUTES } from "../transport/join-token.ts";
import { clusterOfAuthority } from "../transport/node-identity.ts";
import { type CertificateFacts, readCertificate } from "../transport/x509.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { formatTable } from "./table.ts";
import { formatCount } from "./units.ts";

interface Action {
  /** What follows its name. */
  readonly operands: "" | "CLUSTER" | "NODE";
  /** Options that it takes, besides `--directory`. */
  readonly options: readonly string[];
  readonly run: (context: CommandContext, name: string) => Promise<number>;
}

const ACTIONS: Readonly<Record<string, Action>> = {
  init: { operands: "CLUSTER", options: ["days", "force"], run: init },
  issue: { operands: "NODE", options: ["host", "days", "force"], run: issue },
  renew: { operands: "NODE", options: ["days"], run: renew },
  token: { operands: "NODE", options: ["host", "minutes"], run: token },
  show: { operands: "", options: [], run: show },
};

const OWN_OPTIONS = ["host", "days", "minutes", "force"] as const;
/** What a certificate without `--host` is for. */
const LOCAL_HOSTS: readonly string[] = ["localhost", "127.0.0.1", "::1"];
const DAY_MS = 24 * 60 * 60 * 1000;
/** Days before its end from which on a certificate is shown as one to renew. */
const SOON_DAYS = 30;

export const certs: Command = {
  name: "certs",
  summary: "Make a cluster's authority, issue and renew certificates of nodes, and make tokens for nodes that join",
  usage: "init CLUSTER | issue NODE | renew NODE | token NODE | show [options]",
  operands: { min: 1, max: 2 },
  options: {
    directory: {
      type: "string",
      placeholder: "DIRECTORY",
      default: "certs",
      summary: "where certificates and keys are",
    },
    host: {
      type: "string",
      placeholder: "HOST,...",
      summary: "issue, token: names and addresses of the node; without it, this machine's own",
    },
    days: { type: "integer", min: 1, max: 3650, summary: "init, issue, renew: validity; without it, 3650 and 365" },
    minutes: {
      type: "integer",
      min: 1,
      max: MAX_TOKEN_MINUTES,
      summary: `token: how long it can be used; without it, ${TOKEN_MINUTES}`,
    },
    force: { type: "boolean", summary: "init, issue: replace what is there" },
  },
  run(context) {
    const [name = "", operand = "", ...more] = context.operands;
    const action = Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
    if (action === undefined)
      throw new UsageError(`certs takes ${Object.keys(ACTIONS).join(", ")}: ${JSON.stringify(name)} is none`);
    if ((operand === "") !== (action.operands === "") || more.length > 0)
      throw new UsageError(`usage is certs ${`${name} ${action.operands}`.trim()}`);
    for (const option of OWN_OPTIONS) {
      if (action.options.includes(option) || !isGiven(context, option)) continue;
      throw new UsageError(`--${option} is not for certs ${name}`);
    }
    return action.run(context, operand);
  },
};

async function init(context: CommandContext, cluster: string): Promise<number> {
  const directory = directoryOf(context);
  const files = authorityFiles(directory);
  const authority = await createAuthority({ name: cluster, wallMs: Date.now(), ...daysOf(context) });
  const replace = context.flag("force");
  await withHint("ERR_FILE_EXISTS", "--force replaces it", () =>
    writeAuthorityFiles(directory, authority, { replace }),
  );
  const facts = readCertificate(authority.certificate);
  const { output } = context;
  output.object({ cluster, ...files, ...describe(facts) });
  output.line(`Made the authority of cluster ${cluster}, valid until ${dayOf(facts.notAfterMs)}:`);
  output.line(`  ${files.certificate}  goes to every node`);
  output.line(`  ${files.key}  stays where certificates are issued`);
  if (replace) output.line("Certificates of an older authority are not believed by nodes that have the new one.");
  return EXIT.OK;
}

async function issue(context: CommandContext, node: string): Promise<number> {
  const directory = directoryOf(context);
  const files = certificateFiles(directory, node);
  const authority = await issuerIn(directory);
  const replace = context.flag("force");
  const issued = await issueCertificate(authority, {
    node,
    hosts: hostsOf(context),
    wallMs: Date.now(),
    ...daysOf(context),
  });
  await withHint("ERR_FILE_EXISTS", "--force replaces it", () => writeCertificateFiles(files, issued, { replace }));
  const facts = readCertificate(issued.certificate);
  const { output } = context;
  output.object({ node, ...files, ...describe(facts) });
  output.line(`Issued a certificate for node ${node} (${hostsIn(facts)}), valid until ${dayOf(facts.notAfterMs)}.`);
  output.line("The node needs these files, of which the key is a secret:");
  for (const path of [files.certificate, files.key, files.authority]) output.line(`  ${path}`);
  return EXIT.OK;
}

async function renew(context: CommandContext, node: string): Promise<number> {
  const directory = directoryOf(context);
  const files = certificateFiles(directory, node);
  const authority = await issuerIn(directory);
  const old = await readPemFile(files.certificate);
  const renewed = await renewCertificate(authority, old, { wallMs: Date.now(), ...daysOf(context) });
  await replaceCertificateFile(files, renewed);
  const facts = readCertificate(renewed);
  const { output } = context;
  output.object({ node, ...files, ...describe(facts) });
  output.line(`Renewed the certificate of node ${node} (${hostsIn(facts)}), valid until ${dayOf(facts.notAfterMs)}:`);
  output.line(`  ${files.certificate}  is new; the key stays`);
  return EXIT.OK;
}

async function token(context: CommandContext, node: string): Promise<number> {
  const authority = await issuerIn(directoryOf(context));
  const minutes = context.number("minutes") ?? TOKEN_MINUTES;
  const text = createJoinToken(authority, { node, hosts: hostsOf(context), minutes, wallMs: Date.now() });
  const { cluster, hosts, expiresMs } = readJoinToken(text);
  const expires = new Date(expiresMs).toISOString();
  const { output } = context;
  output.object({ cluster, node, hosts, expires, token: text });
  output.line(text);
  if (!output.json)
    output.notes.write(`A secret. Lets node ${node} join cluster ${cluster}, once, until ${expires.slice(0, 16)}Z.\n`);
  return EXIT.OK;
}

/** One line of what there is. */
interface Shown {
  readonly name: string;
  readonly facts: CertificateFacts | undefined;
  /** What it is good for, when there is no complaint. */
  readonly state: string;
  /** Why it cannot be used as it is. */
  readonly complaint: string | undefined;
}

async function show(context: CommandContext): Promise<number> {
  const directory = directoryOf(context);
  const { output } = context;
  const rows = [await inspectAuthority(directory)];
  for (const node of await nodesIn(directory)) rows.push(await inspectNode(directory, node));
  output.object({
    directory,
    certificates: rows.map(({ name, facts, state, complaint }) => ({
      name,
      ...(complaint === undefined ? { state } : { complaint }),
      ...(facts === undefined ? {} : describe(facts)),
    })),
  });
  const columns = [
    { title: "certificate" },
    { title: "valid until" },
    { title: "days left", align: "right" as const },
    { title: "SHA-256" },
    { title: "state" },
    { title: "for" },
  ];
  const cells = rows.map(({ name, facts, state, complaint }) => [
    name,
    facts && dayOf(facts.notAfterMs),
    facts && formatCount(daysLeft(facts)),
    facts?.fingerprint.slice(0, FINGERPRINT_DIGITS),
    complaint === undefined ? state : "not usable",
    facts && !facts.isAuthority ? hostsIn(facts) : undefined,
  ]);
  output.line(formatTable(columns, cells, { columns: output.columns }));
  const complaints = rows.filter(({ complaint }) => complaint !== undefined);
  for (const { name, complaint } of complaints) output.line(`${name}: ${complaint}`);
  return complaints.length === 0 ? EXIT.OK : EXIT.FAILURE;
}

const FINGERPRINT_DIGITS = 16;

/** An authority without its key is what most nodes have, and good for them. */
async function inspectAuthority(directory: string): Promise<Shown> {
  const files = authorityFiles(directory);
  const facts = readCertificate(await readPemFile(files.certificate));
  const name = `authority of ${clusterOfAuthority(facts)}`;
  const hasKey = await isThere(files.key);
  const complaint = await complaintOf(files.key, hasKey, async () => {
    if (hasKey) checkAuthority(await readAuthorityFiles(directory), Date.now());
  });
  return { name, facts, complaint, state: stateOf(facts, hasKey ? "can issue" : "without its key") };
}

async function inspectNode(directory: string, node: string): Promise<Shown> {
  const files = certificateFiles(directory, node);
  let facts: CertificateFacts | undefined;
  const hasKey = await isThere(files.key);
  const complaint = await complaintOf(files.key, hasKey, async () => {
    facts = readCertificate(await readPemFile(files.certificate));
    checkNodeCertificate(await readCertificateFiles(files), Date.now());
  });
  return { name: node, facts, complaint, state: stateOf(facts, "good") };
}

/** What is wrong with a certificate, in the words of the error; undefined when nothing is. */
async function complaintOf(key: string, hasKey: boolean, check: () => Promise<void>): Promise<string | undefined> {
  try {
    await check();
  } catch (error) {
    if (ShardloomError.is(error)) return error.message;
    throw error;
  }
  return hasKey && (await isOpenToOthers(key)) ? "others may read its key" : undefined;
}

function stateOf(facts: CertificateFacts | undefined, praise: string): string {
  return facts !== undefined && daysLeft(facts) < SOON_DAYS ? `${praise}, ends soon` : praise;
}

function describe({ fingerprint, serial, notBeforeMs, notAfterMs, names }: CertificateFacts): Record<string, unknown> {
  return {
    names: names.map(({ value }) => value),
    notBefore: new Date(notBeforeMs).toISOString(),
    notAfter: new Date(notAfterMs).toISOString(),
    serial,
    fingerprint,
  };
}

/** The authority that issues. */
async function issuerIn(directory: string): Promise<KeyedCertificate> {
  const hint = (await isThere(authorityFiles(directory).certificate))
    ? "certificates are issued where the authority's key is"
    : "shardloom certs init makes an authority";
  return withHint("ERR_NO_FILE", hint, () => readAuthorityFiles(directory));
}

/** Adds to a refusal what would help. */
async function withHint<T>(code: ErrorCode, hint: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!ShardloomError.is(error) || error.code !== code) throw error;
    throw new ShardloomError(code, `${error.message}; ${hint}`, { details: error.details, cause: error });
  }
}

function isGiven(context: CommandContext, option: string): boolean {
  return context.flag(option) || context.text(option) !== undefined || context.number(option) !== undefined;
}

function directoryOf(context: CommandContext): string {
  return context.text("directory") ?? "certs";
}

function daysOf(context: CommandContext): { readonly days?: number } {
  const days = context.number("days");
  return days === undefined ? {} : { days };
}

function hostsOf(context: CommandContext): readonly string[] {
  const text = context.text("host");
  return text === undefined ? LOCAL_HOSTS : text.split(",").map((host) => host.trim());
}

function hostsIn({ names }: CertificateFacts): string {
  const hosts = names.filter(({ kind }) => kind !== "uri").map(({ value }) => value);
  return hosts.length === 0 ? "no hosts" : hosts.join(", ");
}

function daysLeft({ notAfterMs }: CertificateFacts): number {
  return Math.floor((notAfterMs - Date.now()) / DAY_MS);
}

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, "2000-01-01".length);
}
