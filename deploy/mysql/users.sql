-- The programs' MySQL users on each shard, run once as an administrator before `spillway migrate`.
-- Put a password of its own in place of each ${…} (the programs read theirs from a file).
--
-- Never keep an anonymous account (''@…) on these servers: the views know a reader by the name it
-- logged in with, and an anonymous login may call itself anything.
--
-- For MySQL 8.0 and MariaDB 10.11 as it stands: each reads a comment that is meant for it, for some
-- rights have another name or another extent there.

-- Owns both databases, and is the definer of the views: it must stay.
CREATE USER IF NOT EXISTS 'spillway_migrate'@'%' IDENTIFIED BY '${spillway_migrate_password}';
GRANT ALL ON spillway_store.* TO 'spillway_migrate'@'%' WITH GRANT OPTION;
GRANT ALL ON spillway.* TO 'spillway_migrate'@'%' WITH GRANT OPTION;

-- Writes rows, ledger and positions; makes and drops nothing.
CREATE USER IF NOT EXISTS 'spillway_consumer'@'%' IDENTIFIED BY '${spillway_consumer_password}';
GRANT SELECT, INSERT, UPDATE, DELETE ON spillway_store.* TO 'spillway_consumer'@'%';

-- Makes and drops partitions (ALTER, CREATE, INSERT, DROP; LOCK TABLES while it looks whether one
-- is still needed), makes rollups, and ends readers' statements.
CREATE USER IF NOT EXISTS 'spillway_keeper'@'%' IDENTIFIED BY '${spillway_keeper_password}';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, LOCK TABLES
  ON spillway_store.* TO 'spillway_keeper'@'%';
GRANT PROCESS, /*!80000 CONNECTION_ADMIN */ /*M!101100 CONNECTION ADMIN */
  ON *.* TO 'spillway_keeper'@'%';

-- Seeds positions, makes readers (users who may SELECT in database spillway and nothing else), and
-- switches servers over (MySQL's; MariaDB's are switched over by its own tools).
CREATE USER IF NOT EXISTS 'spillway_console'@'%' IDENTIFIED BY '${spillway_console_password}';
GRANT SELECT, INSERT, UPDATE, DELETE ON spillway_store.* TO 'spillway_console'@'%';
GRANT SELECT, SHOW VIEW ON spillway.* TO 'spillway_console'@'%' WITH GRANT OPTION;
GRANT SELECT ON performance_schema.* TO 'spillway_console'@'%';
-- `shard move` makes readers at the new shard with the passwords they have.
GRANT SELECT (User, Host, plugin, authentication_string, max_user_connections) ON mysql.user
  TO 'spillway_console'@'%';
GRANT CREATE USER, RELOAD, PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.*
  TO 'spillway_console'@'%';
GRANT /*!80000 CONNECTION_ADMIN, SYSTEM_VARIABLES_ADMIN, REPLICATION_SLAVE_ADMIN */
  /*M!101100 CONNECTION ADMIN, REPLICA MONITOR */
  ON *.* TO 'spillway_console'@'%';
