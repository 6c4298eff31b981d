// What the page needs beside the bundle.
import { copyFileSync } from "node:fs";

for (const file of ["index.html", "style.css"]) {
  copyFileSync(new URL(file, import.meta.url), new URL(`../src/raylift/server/static/${file}`, import.meta.url));
}
