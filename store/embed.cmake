# Turns the numbered SQL files into one C file of const bytes:
#   cmake -DOUT=migrations.c "-DFILES=0001-init.sql;0002-x.sql" -P embed.cmake
# Files are given in order; the Nth must be numbered N.
set(number 0)
set(arrays "")
set(rows "")
foreach(file ${FILES})
	math(EXPR number "${number} + 1")
	get_filename_component(name ${file} NAME_WE)
	if(NOT name MATCHES "^0*${number}-")
		message(FATAL_ERROR "${file}: migration ${number} expected here")
	endif()
	file(READ ${file} hex HEX)
	string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
	string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
	string(APPEND arrays "static const char sql_${number}[] = {\n${bytes}\n0 };\n\n")
	string(APPEND rows "\t{ .version = ${number}, .name = \"${name}\", .sql = sql_${number} },\n")
endforeach()
file(WRITE ${OUT} "/* Made by store/embed.cmake from store/migrations: do not edit. */
#include \"store/store_priv.h\"

${arrays}const struct migration migrations[] = {\n${rows}};
const unsigned migrations_count = ${number};
")
