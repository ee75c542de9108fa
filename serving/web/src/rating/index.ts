/** What the chat and the page use of rating. */

import "./rating.css";

export { Comparison, type ComparisonProps, type Decision } from "./Comparison";
export { Discard } from "./Discard";
export { EditAnswer, type EditAnswerProps } from "./EditAnswer";
export { ROUNDS_BEGIN_AGAIN, roundsWords } from "./erased_words";
export { FlagDialog, type FlagDialogProps, type Report } from "./FlagDialog";
export { MyData, type MyDataProps } from "./MyData";
export { RankingBoard, type Ranked, type RankingBoardProps } from "./RankingBoard";
export type { Ranking } from "./ranking";
export { SaidBefore } from "./SaidBefore";
export { ReasonChips } from "./ReasonChips";
export { ThumbBar, type ThumbBarProps } from "./ThumbBar";
export type { Memory, Source } from "./useAnswers";
