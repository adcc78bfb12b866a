/**
 * Words too common to search for, by language.
 *
 * Invariant: lists are folded as texts are (see tokeniser.ts), and never change without a new name: shards and clients of
 * one collection must leave out the same words. English is Lucene's `EnglishAnalyzer` set of 33 words; the others are the
 * articles, pronouns, prepositions and conjunctions that head each language's frequency lists.
 */
const LISTS: Readonly<Record<string, string>> = {
  english:
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with",
  german:
    "aber als am an auch auf aus bei das dass dem den der des die durch ein eine einem einen einer es für hat ich im in ist mit nach nicht oder sich sie sind so um und uns von vor war was wie wir zu zum zur",
  french:
    "au aux avec ce ces dans de des du elle en est et il ils je la le les leur lui mais ne nous on ou par pas pour qu que qui sa se ses son sur un une vous",
  spanish:
    "al como con de del el ella en entre es esta este ha la las le lo los más mi muy no nos o para pero por que se sin sobre su sus también un una y ya",
  italian:
    "a ai al alla anche che ci come con da dal del della delle di e ed è gli ha i il in io la le lo ma nel nella non o per più se si sono su un una",
  portuguese:
    "a ao aos as às com como da das de do dos e é ela ele em entre eu foi já mais mas na nas não no nos o os ou para pela pelo por que se sem sua um uma",
  dutch:
    "aan al als bij dat de den der des deze die dit door een en er het hij hun ik in is je maar met naar niet nog of om ook op te tot uit van voor was wat we wij wordt ze zich zijn zo",
};

/** Languages that have a list. */
export const STOP_WORD_LANGUAGES: readonly string[] = Object.keys(LISTS);

/** The words of a language's list, or undefined when it has none. */
export function stopWordsOf(language: string): readonly string[] | undefined {
  return Object.hasOwn(LISTS, language) ? (LISTS[language] as string).split(" ") : undefined;
}
