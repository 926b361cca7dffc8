# Run once by the MySQL image, when its data folder is new: the programs' users with the passwords
# of compose's secrets.
script="$(cat /spillway/users.sql)"
for user in migrate consumer keeper console; do
    password="$(cat "/run/secrets/mysql-$user")"
    script="$(printf '%s' "$script" | sed "s/\${spillway_${user}_password}/$password/g")"
done
printf '%s\n' "$script" | docker_process_sql
