one
${
