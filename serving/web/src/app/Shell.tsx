import { useCallback, useEffect, useReducer, useRef, useState } from "react";
import type { Session } from "../api/client";
import { ChatPane } from "../chat/ChatPane";
import { Chats } from "../chat/chats";
import { keepDraft } from "../chat/drafts";
import { forgetTrial } from "../chat/open_trials";
import { forgetStream } from "../chat/pending";
import { Boundary } from "./Boundary";
import { ConversationList } from "./ConversationList";
import { HelpSheet } from "./HelpSheet";
import { MenuIcon, PlusIcon } from "./icons";
import { SettingsMenu } from "./SettingsMenu";
import { MyDataDialog } from "./MyDataDialog";
import { forgetPerson } from "./person";
import { chatPath, conversationIn, go, usePath } from "./route";
import { useConversations } from "./useConversations";
import { isTyping, useKeys } from "./useKeys";

interface ShellProps {
  session: Session;
  onSignOut: () => Promise<void>;
  onSignedOut: () => void;
}

type Open = "help" | "data" | null;

export function Shell({ session, onSignOut, onSignedOut }: ShellProps) {
  const path = usePath();
  const [, repaint] = useReducer((count: number) => count + 1, 0);
  const [open, setOpen] = useState<Open>(null);
  const [drawer, setDrawer] = useState(false);
  const search = useRef<HTMLInputElement>(null);
  const list = useConversations(onSignedOut);
  const [chats, setChats] = useState(() => new Chats());
  const named = conversationIn(path);
  const chat = named === null ? chats.fresh() : chats.open(named);

  useEffect(() => {
    chats.changed = (store) => {
      repaint();
      if (store.state.temporary) return;
      // It has a name from now on; whoever went elsewhere meanwhile is left there.
      if (chats.isFresh(store) && store.state.status === "ready") {
        chats.settle(store);
        if (conversationIn(location.pathname) === null) go(chatPath(store.state.id), { replace: true });
      }
      void list.refresh();
    };
  }, [chats, list.refresh]);
  useEffect(() => () => chats.leave(), [chats]);

  const start = useCallback(() => {
    chats.discardFresh();
    go("/chat");
    repaint();
    setDrawer(false);
    requestAnimationFrame(focusComposer);
  }, [chats]);

  const erased = () => {
    chats.leave();
    forgetPerson();
    setChats(new Chats());
    void list.refresh();
    start();
  };

  useKeys({
    "?": (event) => !isTyping(event) && (setOpen("help"), true),
    "/": (event) => !isTyping(event) && (focusComposer(), true),
    "ctrl+k": () => (setDrawer(true), requestAnimationFrame(() => search.current?.focus()), true),
    "ctrl+shift+o": () => (start(), true),
    escape: () => drawer && (setDrawer(false), true),
  });

  const title = list.items.find((item) => item.id === chat.state.id)?.title;
  useEffect(() => {
    document.title = title ? `${title} · Ratchet` : "Ratchet";
  }, [title]);

  return (
    <div className={drawer ? "shell drawer-open" : "shell"}>
      <a className="skip" href="#composer">
        Skip to the chat
      </a>
      <div className="scrim" onClick={() => setDrawer(false)} />
      <aside className="sidebar" aria-label="Conversations and settings">
        <header>
          <span className="brand">Ratchet</span>
          <button type="button" className="new" onClick={start} title="New conversation (Ctrl Shift O)">
            <PlusIcon /> New
          </button>
        </header>
        <ConversationList
          list={list}
          current={named}
          writing={chats.writing()}
          searchField={search}
          onOpen={() => setDrawer(false)}
          onDeleted={(id) => {
            chats.forget(id);
            forgetStream(id);
            forgetTrial(id);
            keepDraft(id, "");
            if (id === conversationIn(location.pathname)) go("/chat");
          }}
        />
        <SettingsMenu
          session={session}
          onHelp={() => setOpen("help")}
          onData={() => setOpen("data")}
          onSignOut={onSignOut}
        />
      </aside>
      <Boundary key={chat.state.id} of={chat.state.id} fallback={<Broken />}>
        <ChatPane
          store={chat}
          title={title ?? ""}
          onSignedOut={onSignedOut}
          menu={
            <button
              type="button"
              className="icon only-narrow"
              aria-label="Conversations"
              aria-expanded={drawer}
              onClick={() => setDrawer(true)}
            >
              <MenuIcon />
            </button>
          }
        />
      </Boundary>
      {open === "help" && <HelpSheet onClose={() => setOpen(null)} />}
      {open === "data" && <MyDataDialog onClose={() => setOpen(null)} onErased={erased} />}
    </div>
  );
}

function Broken() {
  return (
    <main className="chat">
      <div className="banner" role="alert">
        <p>This conversation could not be shown. Nothing of it is lost.</p>
        <div>
          <button type="button" onClick={() => location.reload()}>
            Reload
          </button>
        </div>
      </div>
    </main>
  );
}

function focusComposer(): void {
  document.getElementById("composer")?.focus();
}
