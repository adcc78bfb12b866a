/**
 * Which join tokens were used: a directory with an empty file for each, named after the token's end and its nonce.
 *
 * Invariant: of all that ever hand in a token, in any number of processes and lives of the acceptor, exactly one is told that it is the first; it is
 * told so once that is durable. A name stays for a week after its token has expired, for clocks that are set back; then it goes.
 * At most {@link MAX_USED_TOKENS} names: when there are more, tokens are refused and not forgotten.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Disk } from "../runtime/disk.ts";
import type { JoinClaim } from "./join-token.ts";

/** Most tokens that are remembered at one time. */
export const MAX_USED_TOKENS = 4096;

/** Remembers which tokens were used. */
export interface UsedTokens {
  /**
   * Whether a token is used for the first time; durable when it settles.
   *
   * @param wallMs The time now, in milliseconds since 1970.
   * @throws {ShardloomError} `ERR_OVERLOADED` when too many tokens were used lately, and as disks do: then the token may count as used.
   */
  remember(claim: Pick<JoinClaim, "nonce" | "expiresMs">, wallMs: number): Promise<boolean>;
}

/** Name of the directory. */
export const USED_TOKENS = "used-tokens";
const NAME = /^(\d{1,16})-[0-9a-f]{32}$/;
const KEPT_MS = 7 * 24 * 60 * 60 * 1000;

/** Opens the table in a directory of a disk; makes it when it is missing. @throws {ShardloomError} As disks do. */
export async function openUsedTokens(disk: Disk): Promise<UsedTokens> {
  await disk.makeDirectory(USED_TOKENS);
  await disk.syncDirectory("");
  return {
    async remember({ nonce, expiresMs }, wallMs) {
      const name = `${expiresMs}-${nonce}`;
      if (!NAME.test(name)) throw invalidArgument("remember join token", "nonce", "of a token with an end", name);
      const names = await forgetOld(disk, wallMs);
      if (names.includes(name)) return false;
      if (names.length >= MAX_USED_TOKENS)
        throw new ShardloomError(
          "ERR_OVERLOADED",
          `Cannot use join token as at most ${MAX_USED_TOKENS} may be remembered: current value is ${names.length}`,
          { details: { limit: MAX_USED_TOKENS } },
        );
      if (!(await isNew(disk, `${USED_TOKENS}/${name}`))) return false;
      await disk.syncDirectory(USED_TOKENS);
      return true;
    },
  };
}

/** Makes a file that only one caller can make. */
async function isNew(disk: Disk, path: string): Promise<boolean> {
  try {
    const file = await disk.open(path, "create");
    await file.close();
    return true;
  } catch (error) {
    if (ShardloomError.is(error) && error.code === "ERR_FILE_EXISTS") return false;
    throw error;
  }
}

/** Removes what is long over. @returns the names that stay */
async function forgetOld(disk: Disk, wallMs: number): Promise<readonly string[]> {
  const kept: string[] = [];
  for (const name of await disk.list(USED_TOKENS)) {
    const [, expires] = NAME.exec(name) ?? [];
    if (expires === undefined) continue; // not ours to remove
    if (Number(expires) + KEPT_MS >= wallMs) kept.push(name);
    else await removeIfThere(disk, `${USED_TOKENS}/${name}`);
  }
  return kept;
}

async function removeIfThere(disk: Disk, path: string): Promise<void> {
  try {
    await disk.remove(path);
  } catch (error) {
    if (!ShardloomError.is(error) || error.code !== "ERR_NO_FILE") throw error; // another process was faster
  }
}
