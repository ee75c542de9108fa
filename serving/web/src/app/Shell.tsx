import { lazy, Suspense, useCallback, useEffect, useReducer, useRef, useState, type ReactNode } from "react";
import type { Session } from "../api/client";
import { ChatPane } from "../chat/ChatPane";
import { Chats } from "../chat/chats";
import { keepDraft } from "../chat/drafts";
import { forgetWords } from "../chat/begun_words";
import { firstQuestions, forgetTrial } from "../chat/open_trials";
import { forgetStream } from "../chat/pending";
import { mayUse, Navigation } from "../console/navigation";
import { Boundary } from "./Boundary";
import { ConversationList } from "./ConversationList";
import { HelpSheet } from "./HelpSheet";
import { CloseIcon, MenuIcon, PlusIcon } from "./icons";
import { Link } from "./Link";
import { SettingsMenu } from "./SettingsMenu";
import { MyDataDialog } from "./MyDataDialog";
import { forgetPerson, welcome } from "./person";
import { chatPath, consoleIn, consolePath, conversationIn, go, usePath } from "./route";
import { useConversations } from "./useConversations";
import { useDrawer } from "./useDrawer";
import { isTyping, useKeys } from "./useKeys";

// The chat is there first: most people never see the console.
const Console = lazy(() => import("../console/Console"));

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
  const drawer = useDrawer();
  const search = useRef<HTMLInputElement>(null);
  const list = useConversations(onSignedOut);
  const [chats, setChats] = useState(() => new Chats());
  const named = conversationIn(path);
  const inConsole = consoleIn(path);
  const chat = named === null ? chats.fresh() : chats.open(named);

  useEffect(() => {
    chats.changed = (store) => {
      repaint();
      if (store.state.temporary) return;
      // It has a name from now on; whoever went elsewhere meanwhile is left there.
      if (chats.isFresh(store) && store.state.status === "ready") {
        chats.settle(store);
        const elsewhere = conversationIn(location.pathname) ?? consoleIn(location.pathname);
        if (elsewhere === null) go(chatPath(store.state.id), { replace: true });
      }
      void list.refresh();
    };
  }, [chats, list.refresh]);
  useEffect(() => () => chats.leave(), [chats]);

  const start = useCallback(() => {
    chats.discardFresh();
    go("/chat");
    repaint();
    drawer.close();
    requestAnimationFrame(focusComposer);
  }, [chats, drawer.close]);

  const erased = () => {
    chats.leave();
    forgetPerson();
    welcome(session);
    setChats(new Chats());
    void list.refresh();
    start();
  };

  useKeys({
    "?": (event) => !isTyping(event.target, event.key) && (setOpen("help"), true),
    "/": (event) => !isTyping(event.target, event.key) && (focusComposer(), true),
    "ctrl+k": () => (drawer.open(), requestAnimationFrame(() => search.current?.focus()), true),
    "ctrl+shift+o": () => (start(), true),
  });

  const title = list.items.find((item) => item.id === chat.state.id)?.title;
  useEffect(() => {
    if (inConsole === null) document.title = title ? `${title} · Ratchet` : "Ratchet";
  }, [title, inConsole === null]);
  const menu = (
    <button
      ref={drawer.opener}
      type="button"
      className="icon only-narrow"
      aria-label={inConsole ? "Views" : "Conversations"}
      aria-expanded={drawer.isOpen}
      onClick={drawer.isOpen ? drawer.close : drawer.open}
    >
      <MenuIcon />
    </button>
  );

  return (
    <div className={drawer.isOpen ? "shell drawer-open" : "shell"}>
      <a className="skip" inert={drawer.isOpen} href={inConsole ? "#console" : "#composer"}>
        {inConsole ? "Skip to the console" : "Skip to the chat"}
      </a>
      <div className="scrim" onClick={drawer.close} />
      <aside className="sidebar" aria-label="Conversations and settings">
        <header>
          <span className="brand">Ratchet</span>
          <button type="button" className="new" onClick={start} title="New conversation (Ctrl Shift O)">
            <PlusIcon /> New
          </button>
          {drawer.isOpen && (
            <button ref={drawer.closer} type="button" className="icon" aria-label="Close" onClick={drawer.close}>
              <CloseIcon />
            </button>
          )}
        </header>
        {inConsole && mayUse(session) ? (
          <Navigation session={session} current={inConsole.view} onOpen={drawer.close} />
        ) : (
          <ConversationList
            list={list}
            current={named}
            writing={chats.writing()}
            judged={firstQuestions()}
            searchField={search}
            onOpen={drawer.close}
            onDeleted={(id) => {
              chats.forget(id);
              forgetStream(id);
              forgetTrial(id);
              forgetWords(id);
              keepDraft(id, "");
              if (id === conversationIn(location.pathname)) go("/chat");
            }}
          />
        )}
        {mayUse(session) && (
          <Link className="elsewhere" to={inConsole ? "/chat" : consolePath("overview")} onOpen={drawer.close}>
            {inConsole ? "Back to the chat" : "Console"}
          </Link>
        )}
        <SettingsMenu
          session={session}
          onHelp={() => setOpen("help")}
          onData={() => setOpen("data")}
          onSignOut={onSignOut}
        />
      </aside>
      <div className="behind" inert={drawer.isOpen}>
        {inConsole ? (
          <Boundary of="console" fallback={<Broken>The console could not be loaded.</Broken>}>
            <Suspense fallback={<p className="arriving">Loading…</p>}>
              <Console session={session} at={inConsole} menu={menu} onSignedOut={onSignedOut} />
            </Suspense>
          </Boundary>
        ) : (
          <Boundary
            key={chat.state.id}
            of={chat.state.id}
            fallback={<Broken>This conversation could not be shown. Nothing of it is lost.</Broken>}
          >
            <ChatPane store={chat} title={title ?? ""} onSignedOut={onSignedOut} menu={menu} />
          </Boundary>
        )}
      </div>
      {open === "help" && <HelpSheet onClose={() => setOpen(null)} />}
      {open === "data" && (
        <MyDataDialog onClose={() => setOpen(null)} onLeave={() => (setOpen(null), drawer.close())} onErased={erased} />
      )}
    </div>
  );
}

function Broken({ children }: { children: ReactNode }) {
  return (
    <main className="chat">
      <div className="banner" role="alert">
        <p>{children}</p>
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
