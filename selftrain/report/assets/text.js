"use strict";
// Texts come from a language model or a stranger: they only ever enter the page as textContent.

function element(tag, className, text, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// Characters that would be invisible, or would reorder what one reads, are shown by their code.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
    (sign) => `\u27e8U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
}

const countOf = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
const number = (value) => value.toFixed(2).replace("-", "\u2212");
