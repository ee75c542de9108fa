import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app/App";
import { applyTheme, chosenTheme } from "./app/theme";
import "./styles/base.css";
import "./styles/app.css";
import "./styles/chat.css";

applyTheme(chosenTheme());
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
