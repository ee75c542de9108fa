import type { ChatState } from "./chat_state";
import type { ChatStore } from "./store";

interface PrivacyBarProps {
  chat: ChatState;
  store: ChatStore;
  /** Something was asked: it can become temporary no more. */
  begun: boolean;
}

/** Whether this chat is kept, and whether policies may learn from it. */
export function PrivacyBar({ chat, store, begun }: PrivacyBarProps) {
  return (
    <div className="privacy">
      {((chat.status === "new" && !begun) || chat.temporary) && (
        <label title="Nothing of it is kept, so it cannot be rated or learned from">
          <input
            type="checkbox"
            role="switch"
            checked={chat.temporary}
            disabled={chat.status !== "new"}
            onChange={(event) => store.setTemporary(event.target.checked)}
          />
          <span>Temporary</span>
        </label>
      )}
      {!chat.temporary && (
        <label title="Off: nothing of this chat is used in training from now on">
          <input
            type="checkbox"
            role="switch"
            aria-label="May be learned from"
            checked={chat.allowTraining}
            onChange={(event) => void store.allowTrainingOf(event.target.checked)}
          />
          <span className="only-wide">May be learned from</span>
          <span className="only-narrow">Learn</span>
        </label>
      )}
    </div>
  );
}
