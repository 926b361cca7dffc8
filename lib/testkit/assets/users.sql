-- The programs' users of a local stack. ${…_password} is put in by testkit.
-- migrate owns both databases and is the definer of the views.
CREATE USER IF NOT EXISTS 'spillway_migrate'@'%' IDENTIFIED BY '${spillway_migrate_password}';
GRANT ALL ON spillway_store.* TO 'spillway_migrate'@'%' WITH GRANT OPTION;
GRANT ALL ON spillway.* TO 'spillway_migrate'@'%' WITH GRANT OPTION;
GRANT CREATE USER, RELOAD, PROCESS ON *.* TO 'spillway_migrate'@'%';
CREATE USER IF NOT EXISTS 'spillway_consumer'@'%' IDENTIFIED BY '${spillway_consumer_password}';
GRANT SELECT, INSERT, UPDATE, DELETE ON spillway_store.* TO 'spillway_consumer'@'%';
-- keeper makes and drops partitions, and ends statements that run too long.
CREATE USER IF NOT EXISTS 'spillway_keeper'@'%' IDENTIFIED BY '${spillway_keeper_password}';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP ON spillway_store.* TO 'spillway_keeper'@'%';
GRANT SELECT ON spillway.* TO 'spillway_keeper'@'%';
GRANT PROCESS, CONNECTION_ADMIN ON *.* TO 'spillway_keeper'@'%';
GRANT SELECT ON performance_schema.* TO 'spillway_keeper'@'%';
-- console makes readers, seeds positions, and switches servers over.
CREATE USER IF NOT EXISTS 'spillway_console'@'%' IDENTIFIED BY '${spillway_console_password}';
GRANT SELECT, INSERT, UPDATE, DELETE ON spillway_store.* TO 'spillway_console'@'%';
GRANT SELECT ON spillway.* TO 'spillway_console'@'%' WITH GRANT OPTION;
GRANT SELECT ON performance_schema.* TO 'spillway_console'@'%';
GRANT CREATE USER, RELOAD, PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO 'spillway_console'@'%';
GRANT CONNECTION_ADMIN, SYSTEM_VARIABLES_ADMIN, REPLICATION_SLAVE_ADMIN ON *.* TO 'spillway_console'@'%';
